"""A run's folder: one run at a time, a log of every sample, and requests to stop."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Self

import torch
from torch import Tensor

from bpgo.errors import UserError
from bpgo.records import AdvantageResult, PromptBatch, WeightedAdvantage
from bpgo.run.progress import MetricsLog, Progress, reopen, whole_iterations
from bpgo.run.shown import ShownSamples
from bpgo.run.wandb_log import wandb_log
from bpgo.storage.files import disk_explained, remove_parts
from bpgo.storage.locks import take
from bpgo.storage.seals import read_sealed, write_sealed

# A terminal sends SIGINT (Ctrl-C) and, when it is closed, SIGHUP.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP)
METRICS, ROWS = "metrics.jsonl", "rollouts.jsonl"
NOTES, NOTED = "digests.json", 3  # beside the checkpoints; of so many of them
NO_LOCKS = (
    ", so two processes could train one run: put the results on a file system with flock (Lustre:"
    " mount it with -o flock)"
)


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """One run per folder: the operating system drops the lock when the process ends.

    What a killed process left half written in the folder is removed.

    Raises:
        UserError: if another process has it, or the file system knows no locks.
    """
    path = folder / ".lock"
    with path.open("w") as file:
        if not take(file, NO_LOCKS):
            raise UserError(f"{folder} is being trained by another process")
        file.write(str(os.getpid()))
        file.flush()
        for place in (folder, folder / "state", folder / "snapshots"):
            remove_parts(place)
        yield


@contextmanager
def on_stop_signals(request: Callable[[], None]) -> Iterator[None]:
    """Inside the block the `STOP_SIGNALS` call `request`; after it, the old handlers stand.

    One that is ignored, such as SIGHUP under `nohup`, stays so.
    """

    def handler(_number: int, _frame: FrameType | None) -> None:
        request()

    heard = [number for number in STOP_SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    kept = {number: signal.signal(number, handler) for number in heard}
    try:
        yield
    finally:
        for number, old in kept.items():
            signal.signal(number, old)


def logged_iterations(folder: Path) -> int:
    """How many iterations, from the first, the logs of a run hold without a gap.

    No more than are as they were written: by the digests that were noted beside the checkpoints.
    """
    whole = min(whole_iterations(folder / name) for name in (METRICS, ROWS))
    noted = {done: each for done, each in _noted(folder).items() if done <= whole}
    same = [done for done, each in noted.items() if each == _digests(folder, done)]
    return whole if not noted or max(noted) in same else max(same, default=0)


def note_logs(folder: Path, done: int) -> None:
    """Note the digests of the logs, which have `done` iterations now."""
    noted = {**_noted(folder), done: _digests(folder, done)}
    newest = {str(number): noted[number] for number in sorted(noted)[-NOTED:]}
    write_sealed(folder / "state" / NOTES, newest)


def _noted(folder: Path) -> dict[int, Any]:
    """By number of iterations what `note_logs` noted; nothing where that cannot be read."""
    try:
        found = read_sealed(folder / "state" / NOTES, "")
    except UserError:
        return {}
    return {int(done): each for done, each in found.items() if done.isdecimal()}


def _digests(folder: Path, lines: int) -> list[str]:
    """SHA-256 of the first lines of each log."""
    found = []
    for name in (METRICS, ROWS):
        with (folder / name).open("rb") as file:
            digest = hashlib.sha256()
            for line in itertools.islice(file, lines):
                digest.update(line)
        found.append(digest.hexdigest())
    return found


class RowLog:
    """Every sample's reward, advantage and group weight: one JSON line per iteration."""

    def __init__(self, path: Path, finished: int) -> None:
        self.path = path
        self._file = reopen(path, finished)

    def write(
        self,
        iteration: int,
        chosen: PromptBatch,
        rewards: Tensor,
        diagnostics: dict[str, Tensor],
        result: AdvantageResult,
    ) -> None:
        """Append one iteration; `rewards` and each of `diagnostics` `[P, G]`."""
        advantage = torch.stack([_by_sample(term) for term in result.terms]).sum(0)
        columns = {name: _numbers(value) for name, value in result.group_columns.items()}
        entry = {
            "iteration": iteration,
            "prompt_id": chosen.ids,
            "ambiguity": chosen.ambiguities,
            "reward": _numbers(rewards),
            "advantage": _numbers(advantage),
            "diagnostics": {name: _numbers(value) for name, value in diagnostics.items()},
            "groups": columns,
        }
        with disk_explained(self.path):
            self._file.write(json.dumps(entry) + "\n")
            self._file.flush()

    def sync(self) -> None:
        """Have all lines on the disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Flush and close the file."""
        with disk_explained(self.path):
            self._file.close()


class RunLogs:
    """What a run's main process tells while it trains: metrics, rows of samples, progress."""

    def __init__(
        self, folder: Path, title: str, total: int, done: int, notes: Iterable[str]
    ) -> None:
        self.folder, self._done = folder, done
        self.metrics = MetricsLog(folder, done)
        self.rows = RowLog(folder / ROWS, done)
        if done:
            note_logs(folder, done)
        self.progress = Progress(title, total, done)
        self.wandb = wandb_log(title, folder, self.progress.say)
        self._notes = notes

    def __enter__(self) -> Self:
        self.progress.__enter__()
        for note in self._notes:
            self.progress.say(note)
        return self

    def __exit__(self, *error: Any) -> None:
        self.progress.__exit__(*error)
        self.metrics.close()
        self.rows.close()
        if self.wandb is not None:
            self.wandb.close()

    def sync(self) -> None:
        """Have all lines on the disk, and their digests, before a checkpoint counts on them."""
        self.metrics.sync()
        self.rows.sync()
        note_logs(self.folder, self._done)

    def write(self, entry: dict[str, Any], shown: ShownSamples | None = None) -> None:
        """One finished iteration, and some of its samples."""
        png = shown.png() if shown is not None and shown.kept else None
        self.metrics.write(entry, png)
        self._done = entry["iteration"]
        if self.wandb is not None:
            self.wandb.write(entry, png)
        self.progress.step(entry["iteration"], f"reward {entry['reward_mean']:.3f}")


def _by_sample(term: WeightedAdvantage) -> Tensor:
    """A term's weighted advantage `[P, G]`: the mean over steps or sites."""
    advantage = term.advantage.flatten(2).mean(2) if term.over != "sample" else term.advantage
    return term.weight * advantage * (1.0 if term.scale is None else term.scale)


def _numbers(values: Tensor) -> list[Any]:
    # Nine significant digits give a float32 back exactly.
    listed: list[Any] = values.double().tolist()
    return listed
