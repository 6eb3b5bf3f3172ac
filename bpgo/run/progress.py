"""What a person and a program see of a running job: a live line, a log, JSONL, TensorBoard."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from bpgo.storage.files import disk_explained, write_text


class MetricsLog:
    """One JSON line per iteration in `metrics.jsonl`, and the same numbers for TensorBoard.

    On resume, lines of iterations that will be done again are cut off, so that the file ends as
    if the run had not been interrupted.
    """

    def __init__(self, folder: Path, finished: int) -> None:
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "metrics.jsonl"
        self._file = reopen(self.path, finished)
        self._events = EventFileWriter(str(folder / "tensorboard"))

    def write(self, entry: dict[str, Any], png: bytes | None = None) -> None:
        """Append one iteration; `png` is a picture of its samples, for TensorBoard alone."""
        with disk_explained(self.path):
            self._file.write(json.dumps(entry) + "\n")
            self._file.flush()
        self._write_event(entry, png)

    def _write_event(self, entry: dict[str, Any], png: bytes | None) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [
            Summary.Value(tag=name, simple_value=float(value))
            for name, value in entry.items()
            if isinstance(value, (int, float)) and name != "iteration"
        ]
        if png is not None:
            # Width and height stand in a PNG's header, big-endian.
            width, height = (int.from_bytes(png[at : at + 4], "big") for at in (16, 20))
            picture = Summary.Image(
                height=height, width=width, colorspace=3, encoded_image_string=png
            )
            values.append(Summary.Value(tag="samples", image=picture))
        event = Event(wall_time=time.time(), step=entry["iteration"], summary=Summary(value=values))
        self._events.add_event(event)

    def sync(self) -> None:
        """Have all lines on the disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Flush and close both files."""
        with disk_explained(self.path):
            self._file.close()
        self._events.close()


def reopen(path: Path, finished: int) -> TextIO:
    """Open a JSONL file to append to, without the lines of iterations after `finished`."""
    kept = read_lines(path)[: whole_iterations(path, finished)]
    write_text(path, "".join(json.dumps(entry) + "\n" for entry in kept))
    return path.open("a", encoding="utf-8")


def whole_iterations(path: Path, most: int | None = None) -> int:
    """How many iterations, from the first, a JSONL file has one whole line for; `most` of them."""
    found = 0
    for number, entry in enumerate(read_lines(path), start=1):
        if not isinstance(entry, dict) or entry.get("iteration") != number or found == most:
            break
        found = number
    return found


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a JSONL file; a last line that a crash cut short is left out."""
    if not path.exists():
        return []
    entries = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return entries


class Progress:
    """Iterations, seconds per iteration, the reward's mean and the time left.

    A live bar on a terminal (rich); plain lines, at most one every few seconds, in a log.
    """

    INTERVAL = 5.0  # seconds between plain lines

    def __init__(self, title: str, total: int, done: int = 0) -> None:
        self.title, self.total, self.done, self.started_at = title, total, done, done
        self._start = self._last = time.monotonic()
        self._bar: Any = None
        self._task: Any = None
        if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
            self._bar, self._task = _bar(title, total, done)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def step(self, done: int, note: str = "") -> None:
        """Say that `done` of `total` are finished."""
        self.done = done
        now = time.monotonic()
        rate = (now - self._start) / max(done - self.started_at, 1)
        left = rate * (self.total - done)
        remaining = f"{clock_text(left)} left"
        text = f"{rate:.2f} s each, {note}, {remaining}" if note else remaining
        if self._bar is not None:
            self._bar.update(self._task, completed=done, note=text)
        elif done == self.total or done == self.started_at + 1 or now - self._last > self.INTERVAL:
            self._last = now
            print(f"{self.title}: {done}/{self.total}, {text}", file=sys.stderr, flush=True)

    def add(self, count: int) -> None:
        """Say that `count` more are finished."""
        self.done += count
        self.step(self.done)

    def say(self, message: str) -> None:
        """A line of its own."""
        if self._bar is not None:
            self._bar.console.print(message)
        else:
            print(message, file=sys.stderr, flush=True)


def _bar(title: str, total: int, done: int) -> tuple[Any, Any]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    bar = Bar(*columns, TextColumn("{task.fields[note]}"), console=Console(stderr=True))
    return bar, bar.add_task(title, total=total, completed=done, note="")


def clock_text(seconds: float) -> str:
    """A time in words of a clock: `0:07`, `41:07`, `1:41:07`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
