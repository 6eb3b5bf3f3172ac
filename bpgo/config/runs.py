"""A training run, named."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Run:
    """Experiment x arm x seed."""

    experiment: str
    arm: str
    seed: int

    @property
    def folder(self) -> str:
        """`experiment/arm/seed_1`, below `runs`, `samples` or `scores`."""
        return f"{self.experiment}/{self.arm}/seed_{self.seed}"
