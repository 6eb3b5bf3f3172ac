"""What training changes, to a checkpoint and back; the same on any number of processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bpgo.core.arm import Arm
from bpgo.errors import NonFiniteError
from bpgo.run import checkpoint as checkpoints
from bpgo.run.ema import EMA
from bpgo.run.processes import Processes
from bpgo.run.sharding import gathered, part_of


@dataclass
class RunState:
    """Weights, optimizer, averages and the arm's memory."""

    parameters: dict[str, Tensor]
    optimizer: torch.optim.Optimizer
    averages: dict[str, EMA]  # by name: the judged one, and the arm's further policies
    arm: Arm
    processes: Processes

    def save(self, folder: Path, iteration: int, digest: str, extra: dict[str, Any]) -> None:
        """Write a checkpoint; `extra` is JSON. All processes call it, the main one writes."""
        main = self.processes.main
        weights = {name: p.detach() for name, p in self.parameters.items()}
        found = checkpoints.Checkpoint(
            iteration,
            gathered(weights, main),
            gathered(checkpoints.optimizer_tensors(self.optimizer), main),
            gathered(self._averages(), main),
            {"arm": self.arm.state_dict(), **extra},
        )
        with self.processes.together():
            if main:
                checkpoints.save(folder, found, digest)

    @contextmanager
    def tried(self, folder: Path, iteration: int) -> Iterator[None]:
        """Inside, an iteration is made; where it diverges, the state before it was not good."""
        try:
            yield
        except NonFiniteError as error:
            aside = checkpoints.set_aside(folder, iteration - 1) if self.processes.main else None
            if aside is None:
                raise
            raise NonFiniteError(
                f"{error}. The state before it is set aside as {aside}: a step from it failed."
                " To go on from it all the same, take the ending away"
            ) from None

    def restore(
        self, folder: Path, digest: str, logged: int
    ) -> tuple[int, dict[str, Any], list[str]]:
        """Take the newest whole checkpoint of no more iterations than are `logged`.

        Gives its iteration (0: none), its `extra`, and notes.
        """
        found, notes = checkpoints.load_newest(folder, digest, logged)
        if found is None:
            return 0, {}, notes
        weights = self.parameters
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(part_of(found.weights[name], weight))
        checkpoints.restore_optimizer(self.optimizer, self._parts(found.optimizer))
        own = self._averages()
        parts = {name: part_of(value, own[name]) for name, value in found.ema.items()}
        for name, average in self.averages.items():
            start = f"{name}/"
            average.load_state_dict(
                {key.removeprefix(start): v for key, v in parts.items() if key.startswith(start)}
            )
        self.arm.load_state_dict(found.state["arm"])
        return found.iteration, found.state, [*notes, f"resumed after iteration {found.iteration}"]

    def _averages(self) -> dict[str, Tensor]:
        """All averages' states, `{name}/{key}`."""
        return {
            f"{name}/{key}": value
            for name, average in self.averages.items()
            for key, value in average.state_dict().items()
        }

    def _parts(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """This process's part of the optimizer's state, which is laid out like the weights."""
        weights = list(self.parameters.values())
        parts = {}
        for key, value in tensors.items():
            weight = weights[int(key.split(".", 1)[0])]
            parts[key] = part_of(value, weight) if value.shape == weight.shape else value
        return parts
