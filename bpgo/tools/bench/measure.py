"""Clocks, and a median with its interval.

Two clocks run side by side. Processor seconds of this process are the ones to trust on a CPU, where
other processes stretch the wall's; on a GPU the wall's, read after the device is done.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any

import numpy as np
import torch

from bpgo.seeding import numpy_generator

CONFIDENCE = 0.95
RESAMPLES = 2000


@dataclass(frozen=True)
class Seconds:
    """A reading, or the time between two."""

    wall: float = 0.0
    cpu: float = 0.0

    def __add__(self, other: Seconds) -> Seconds:
        return Seconds(self.wall + other.wall, self.cpu + other.cpu)

    def __sub__(self, other: Seconds) -> Seconds:
        return Seconds(self.wall - other.wall, self.cpu - other.cpu)

    def on(self, clock: str) -> float:
        """The seconds of one clock, `wall` or `cpu`."""
        return self.wall if clock == "wall" else self.cpu


def trusted_clock(device: torch.device) -> str:
    """The clock whose figures are reported: `cpu` on a CPU, else `wall`."""
    return "cpu" if device.type == "cpu" else "wall"


class Stopwatch:
    """Adds up the seconds spent in named parts."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.parts: dict[str, Seconds] = defaultdict(Seconds)
        self.readings: list[Seconds] = []

    def read(self) -> Seconds:
        """Now, with the device's queue empty."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return Seconds(time.perf_counter(), time.process_time())

    def clock(self) -> float:
        """A clock for `bpgo.core.trainer.Trainer`; both readings of each call are kept."""
        self.readings.append(self.read())
        return self.readings[-1].wall

    def reset(self) -> None:
        """Forget all parts and readings."""
        self.parts.clear()
        self.readings.clear()

    @contextmanager
    def measure(self, part: str) -> Iterator[None]:
        """Count the block's time as `part`."""
        start = self.read()
        try:
            yield
        finally:
            self.parts[part] += self.read() - start

    def wrap(self, function: Callable[..., Any], part: str) -> Callable[..., Any]:
        """`function`, each call counted as `part`."""

        @wraps(function)
        def timed(*arguments: Any, **named: Any) -> Any:
            with self.measure(part):
                return function(*arguments, **named)

        return timed


def summarize(values: Sequence[float]) -> dict[str, float]:
    """Median of repeats and its 95 % interval (percentile bootstrap)."""
    array = np.asarray(values, dtype=float)
    draws = numpy_generator(0, "bench", "bootstrap").integers(
        0, len(array), (RESAMPLES, len(array))
    )
    medians = np.median(array[draws], axis=1)
    low, high = np.quantile(medians, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    median = float(np.median(array))
    return {"median": median, "low": float(low), "high": float(high), "n": len(array)}
