"""What a person sees of a workflow: what runs now, the time left, a line for each finished run.

Takes the place of Snakemake's own account of every job on the terminal; that one stays in
Snakemake's log, and what jobs say in theirs. Errors and warnings are shown as ever.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TextIO

from bpgo.run.progress import clock_text

# Snakemake's events that are only an account (`snakemake_interface_logger_plugins.LogEvent`).
ROUTINE = (
    *("run_info", "shellcmd", "job_info", "job_started", "job_finished", "group_info"),
    *("resources_info", "progress"),
)
KEPT = "Complete log"  # begins a message without an event that is shown
LIVE, PLAIN = 1.0, 60.0  # seconds between looks at a terminal, and between lines elsewhere
SHOWN = 3  # running jobs that are named
WIDTH = 160  # characters of the live line


@dataclass(frozen=True, eq=False)
class Job:
    """A job that runs."""

    rule: str
    wildcards: Mapping[str, str]
    start: float  # seconds of the clock

    @property
    def name(self) -> str:
        """`train ambiguous/grpo/seed_1`."""
        words = dict(self.wildcards)
        root = words.pop("root", "").rpartition("/")[2]
        if "seed" in words:
            words["seed"] = f"seed_{words['seed']}"
        order = [key for key in ("experiment", "arm", "seed") if key in words]
        parts = [words[key] for key in dict.fromkeys([*order, *words])]
        parts = parts if root in ("", "results", "smoke") else [root, *parts]
        return " ".join([self.rule, *(["/".join(parts)] if parts else [])])


class TimeLeft:
    """How long the jobs that are left will take, from those that are done.

    Args:
        planned: jobs of the call by rule.
        before: seconds of jobs of earlier calls by rule.
    """

    def __init__(self, planned: Mapping[str, int], before: Mapping[str, list[float]]) -> None:
        self.planned, self.before = planned, before
        self.done: dict[str, list[float]] = {}

    def finish(self, rule: str, seconds: float) -> None:
        """Count a job."""
        self.done.setdefault(rule, []).append(seconds)

    def estimate(
        self, running: list[Job], shares: Mapping[Job, float], start: float, now: float
    ) -> float | None:
        """Seconds, or None where nothing is known of the longest jobs yet.

        `shares` says of some running jobs which share of them is done. Rules that nothing is known
        of take the mean of the others. As many jobs run side by side as until now.
        """
        known = {rule: seconds for rule, seconds in self.before.items() if seconds}
        known |= self.done
        means = {rule: sum(seconds) / len(seconds) for rule, seconds in known.items()}
        for job, share in shares.items():
            if job.rule not in self.done and share > 0:
                means[job.rule] = (now - job.start) / share
        left = Counter(self.planned)
        left.subtract({rule: len(seconds) for rule, seconds in self.done.items()})
        if not means or (left["train"] > 0 and "train" not in means):
            return None
        other = sum(means.values()) / len(means)
        work = sum(max(0, count) * means.get(rule, other) for rule, count in left.items())
        work -= sum(min(now - job.start, means.get(job.rule, other)) for job in running)
        spent = sum(map(sum, self.done.values())) + sum(now - job.start for job in running)
        return max(0.0, work) / max(1.0, spent / max(now - start, 1e-9))


class Watch(logging.Handler):
    """Follows Snakemake's log records of one call.

    Args:
        time_left: knows the jobs of the call.
        result: what a finished job has made, in words, by its rule and wildcards; None: no line.
        share: which share of a running job is done; None: unknown.
        stream: a live line on a terminal, plain lines elsewhere.
        clock: seconds.
    """

    def __init__(
        self,
        time_left: TimeLeft,
        result: Callable[[str, Mapping[str, str]], str | None],
        share: Callable[[str, Mapping[str, str]], float | None],
        stream: TextIO = sys.stderr,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self.time_left, self.result, self.share = time_left, result, share
        self.stream, self.clock = stream, clock
        self.live = stream.isatty()
        self.start = self.said = clock()
        self.running: dict[int, Job] = {}
        self.total, self.finished = sum(time_left.planned.values()), 0
        self._over = threading.Event()

    def follow(self, logger: logging.Logger) -> None:
        """Take the place of the account that Snakemake's own handler shows."""
        for handler in logger.handlers:
            if handler.name == "DefaultStreamHandler":
                handler.addFilter(self.passes)
                logger.addHandler(self)
                threading.Thread(target=self._tick, daemon=True).start()
                return

    def passes(self, record: logging.LogRecord) -> bool:
        """Whether Snakemake's handler shows a record; the live line makes room for it."""
        event = getattr(record, "event", None)
        shown = record.levelno >= logging.WARNING or (
            event not in ROUTINE if event is not None else record.getMessage().startswith(KEPT)
        )
        if shown:
            self._clear()
        return shown

    def emit(self, record: logging.LogRecord) -> None:
        """Take note of a job that starts, ends or fails."""
        try:
            self._note(record)
        except Exception:  # an account must not end the work
            self.handleError(record)

    def show(self) -> None:
        """The status: on a terminal in the place of the last one."""
        text = self.status()
        self.said = self.clock()
        if self.live:
            self.stream.write(f"\r\x1b[K{text[:WIDTH]}")
            self.stream.flush()
        else:
            print(text, file=self.stream, flush=True)

    def status(self) -> str:
        """`12 of 242 jobs, 0:41:00 left; now: train clear/grpo/seed_1 (40 %), ...`."""
        shares = {job: self.share(job.rule, job.wildcards) for job in self.running.values()}
        known = {job: share for job, share in shares.items() if share is not None}
        names = [
            job.name + (f" ({share:.0%})" if (share := known.get(job)) is not None else "")
            for job in sorted(self.running.values(), key=lambda each: each.start)
        ]
        more = len(names) - SHOWN
        listed = ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
        return f"{self._counted(known)}; now: {listed or 'nothing'}"

    def end(self) -> None:
        """Nothing is shown from here on."""
        if self._over.is_set():
            return
        self._over.set()
        self._clear()
        took = clock_text(self.clock() - self.start)
        print(f"{self.finished} of {self.total} jobs in {took}", file=self.stream, flush=True)

    def _note(self, record: Any) -> None:
        event = getattr(record, "event", None)
        if event == "job_info":
            job = Job(record.rule_name, dict(record.wildcards or {}), self.clock())
            self.running[record.jobid] = job
        elif event == "job_error":
            self.running.pop(record.jobid, None)
        elif event == "job_finished":
            self._finish(record.job_id)
        if self.live:
            self.show()

    def _finish(self, number: int) -> None:
        job = self.running.pop(number, None)
        self.finished += 1
        if job is None:
            return
        seconds = self.clock() - job.start
        self.time_left.finish(job.rule, seconds)
        made = self.result(job.rule, job.wildcards)
        if made is not None:
            self._clear()
            line = f"{job.name}: {made}, {clock_text(seconds)}"
            counted = "" if self.live else f" [{self._counted({})}]"
            print(f"{line}{counted}", file=self.stream, flush=True)
            self.said = self.clock()

    def _counted(self, shares: Mapping[Job, float]) -> str:
        jobs = list(self.running.values())
        left = self.time_left.estimate(jobs, shares, self.start, self.clock())
        text = f"{self.finished} of {self.total} jobs"
        return text if left is None else f"{text}, {clock_text(left)} left"

    def _tick(self) -> None:
        while not self._over.wait(LIVE):
            if self.live or self.clock() - self.said >= PLAIN:
                self.acquire()
                try:
                    self.show()
                finally:
                    self.release()

    def _clear(self) -> None:
        if self.live:
            self.stream.write("\r\x1b[K")
