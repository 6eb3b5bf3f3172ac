"""Progress of a training stage as plain lines: step, time left, a few figures."""

from __future__ import annotations

import sys
import time


class Progress:
    """Prints a line about every ``interval`` seconds and at the last step, to standard error."""

    def __init__(self, stage: str, steps: int, interval: float = 10.0) -> None:
        self.stage = stage
        self.steps = steps
        self.interval = interval
        self.started = self.printed = time.monotonic()
        self.processor_started = time.process_time()

    def step(self, step: int, **figures: float) -> None:
        """Report that step ``step`` (from 0) is done."""
        now, done = time.monotonic(), step + 1
        if now - self.printed < self.interval and done < self.steps:
            return
        self.printed = now
        left = (now - self.started) / done * (self.steps - done)
        processor = time.process_time() - self.processor_started
        shown = ", ".join(f"{name} {value:.4f}" for name, value in figures.items())
        print(
            f"{self.stage}: step {done}/{self.steps}, {shown}, "
            f"{processor:.0f} CPU-s used, {left:.0f} s left",
            file=sys.stderr,
            flush=True,
        )


def say(stage: str, figures: dict[str, float]) -> None:
    """Report a stage's result as one line."""
    shown = ", ".join(f"{name} {value:.4f}" for name, value in figures.items())
    print(f"{stage}: done, {shown}", file=sys.stderr, flush=True)
