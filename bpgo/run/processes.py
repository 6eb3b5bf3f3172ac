"""Several processes that train one policy: who draws which groups, and what they add up.

One process is the usual case: `Processes()` divides nothing and talks to nobody. `accelerate
launch` starts more, one a GPU; `start` then returns `SeveralProcesses`. Each process draws, scores
and differentiates the groups of its part. Rewards are gathered, so the arm sees all groups in the
order in which one process would; it computes the same advantages everywhere. Gradients are summed
before they are clipped. So the result does not depend on the number of processes, beyond the
rounding of sums.

Gradients are added up once per optimizer step, explicitly. DDP's hooks would add them up at every
backward pass, and this loop has several per step.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor

from bpgo.errors import RunError, StoppedElsewhereError, UserError

PATIENCE = timedelta(minutes=30)  # how long a process waits for the others before it gives up
BUCKET = 64 * 2**20  # numbers summed in one go
NAMES = 4096  # bytes of a list of names
EXIT_CODES = 1000  # above any exit code


class Processes:
    """One process alone. Shapes and values pass through unchanged."""

    rank = 0
    count = 1

    @property
    def main(self) -> bool:
        """Whether this process writes the run's files."""
        return self.rank == 0

    def part(self, total: int) -> slice:
        """This process's share of `total` rows or groups; `total` is divisible by `count`."""
        share = total // self.count
        return slice(self.rank * share, (self.rank + 1) * share)

    def gather(self, values: Tensor) -> Tensor:
        """The parts of all processes, in order, along dimension 0."""
        return values

    def sum(self, values: Tensor) -> Tensor:
        """Elementwise, over the processes."""
        return values

    def largest(self, value: float) -> float:
        """Of all processes' values."""
        return value

    def names(self, own: list[str]) -> list[str]:
        """All names that some process has, sorted."""
        return sorted(own)

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replace each gradient by its sum over the processes."""

    @contextmanager
    def together(self) -> Iterator[None]:
        """An error inside the block, on any process, ends the block on all of them.

        The first process that failed raises its own error, the others `StoppedElsewhereError`. So
        none waits for one that is gone. Nothing inside the block may wait for other processes.
        """
        yield

    def close(self) -> None:
        """Leave the group of processes; called at the end of a run that went well."""


class SeveralProcesses(Processes):
    """As many as the launcher started (NCCL on GPUs, gloo without)."""

    def __init__(self) -> None:
        from accelerate import PartialState

        _end_with_the_launcher()
        self._state = PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)
        self.rank, self.count = self._state.process_index, self._state.num_processes
        self.device = self._state.device
        if self.device.type == "cpu":
            self.device = torch.device("cpu")  # accelerate counts CPUs, which torch does not

    def gather(self, values: Tensor) -> Tensor:
        parts = [torch.empty_like(values) for _ in range(self.count)]
        torch.distributed.all_gather(parts, values.contiguous())
        return torch.cat(parts)

    def sum(self, values: Tensor) -> Tensor:
        total = values.clone()
        torch.distributed.all_reduce(total)
        return total

    def largest(self, value: float) -> float:
        found = torch.tensor(value, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MAX)
        return float(found)

    def names(self, own: list[str]) -> list[str]:
        text = json.dumps(own).encode().ljust(NAMES)
        sent = torch.tensor(list(text), dtype=torch.uint8, device=self.device)
        received = self.gather(sent[None]).cpu().tolist()
        return sorted({name for row in received for name in json.loads(bytes(row))})

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """A parameter that has no gradient anywhere keeps none, as with one process."""
        several = list(parameters)
        present = torch.tensor([int(p.grad is not None) for p in several], device=self.device)
        counts = self.sum(present).tolist()
        needed = [p for p, count in zip(several, counts, strict=True) if count]
        for bucket in _buckets(needed):
            parts = [p.grad if p.grad is not None else torch.zeros_like(p) for p in bucket]
            flat = torch.cat([part.flatten() for part in parts])
            torch.distributed.all_reduce(flat)
            for p, summed in zip(bucket, flat.split([p.numel() for p in bucket]), strict=True):
                p.grad = summed.view_as(p)

    @contextmanager
    def together(self) -> Iterator[None]:
        error: Exception | None = None
        try:
            yield
        except Exception as caught:
            error = caught
        code = EXIT_CODES * self.count  # nothing failed
        if error is not None:
            code = EXIT_CODES * self.rank + _exit_code(error)
        first = torch.tensor(code, device=self.device)
        torch.distributed.all_reduce(first, torch.distributed.ReduceOp.MIN)
        rank, exit_code = divmod(int(first), EXIT_CODES)
        if rank == self.count:
            return
        if error is not None and rank == self.rank:
            raise error
        raise StoppedElsewhereError(f"process {rank} of {self.count} stopped", exit_code)

    def close(self) -> None:
        self._state.destroy_process_group()


def several() -> bool:
    """Whether a launcher started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def start() -> Processes:
    """This process's place among those of its run."""
    return SeveralProcesses() if several() else Processes()


def check_parts(prompts_per_iteration: int, processes: Processes) -> None:
    """`UserError` where the groups of an iteration cannot be shared out evenly."""
    if prompts_per_iteration % processes.count:
        raise UserError(
            f"rollout.prompts_per_iteration: {prompts_per_iteration} groups cannot be shared out"
            f" evenly among {processes.count} processes; it must be a multiple of machine.gpus"
        )


def _buckets(parameters: list[Tensor]) -> Iterator[list[Tensor]]:
    """Parameters in turn, at most `BUCKET` numbers together (or one parameter alone)."""
    bucket: list[Tensor] = []
    for parameter in parameters:
        if bucket and sum(p.numel() for p in [*bucket, parameter]) > BUCKET:
            yield bucket
            bucket = []
        bucket.append(parameter)
    if bucket:
        yield bucket


def _exit_code(error: Exception) -> int:
    if isinstance(error, UserError):
        return 2
    return error.exit_code if isinstance(error, RunError) else 1


def _end_with_the_launcher() -> None:
    """Ask Linux for SIGTERM when the launcher dies, so that no process of a dead run stays."""
    if sys.platform == "linux":
        set_parent_death_signal = 1  # PR_SET_PDEATHSIG
        library: Any = ctypes.CDLL(None)
        library.prctl(set_parent_death_signal, signal.SIGTERM)
