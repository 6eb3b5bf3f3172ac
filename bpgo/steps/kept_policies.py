"""The policies that a training run leaves behind."""

from __future__ import annotations

from pathlib import Path

from bpgo.config.settings import Settings


def stages_of(settings: Settings, trained: Path) -> list[tuple[int, Path]]:
    """(iteration, folder of weights), the final policy last."""
    *every, last = settings.training.stages()
    snapshots = [(step, trained / "snapshots" / f"iteration_{step:06d}") for step in every]
    return [*snapshots, (last, trained / "policy")]
