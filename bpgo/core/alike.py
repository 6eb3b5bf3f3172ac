"""Which samples of a group have the same latents so far: what a rollout needs to compute once.

Samples that start from the same noise are one path until a step at which they have noise of their
own. Torch is imported only where tensors are asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from bpgo.records import Plan


def first_alike(
    noise_of: Sequence[Sequence[int]], stochastic: Sequence[Sequence[bool]]
) -> list[list[int]]:
    """For each sample of a group the first one with the same latents before each step `[G][T]`.

    `noise_of` `[G][T+1]` and `stochastic` `[G][T]` as in `bpgo.records.Plan`.
    """
    known: dict[tuple[int, int | None, int | None], int] = {}
    found = []
    for sample, (noise, noisy) in enumerate(zip(noise_of, stochastic, strict=True)):
        same = known.setdefault((-1, None, noise[0]), sample)
        row = []
        for step, moved in enumerate(noisy):
            row.append(same)
            same = known.setdefault((step, same, noise[step + 1] if moved else None), sample)
        found.append(row)
    return found


def alike_rows(plan: Plan, group_size: int) -> Tensor:
    """The same for all rows of a plan `[B, T]`, as row numbers; B is whole groups."""
    import torch

    rows: list[list[int]] = []
    noise_of, stochastic = plan.noise_of.tolist(), plan.stochastic.tolist()
    for start in range(0, len(noise_of), group_size):
        group = slice(start, start + group_size)
        for row in first_alike(noise_of[group], stochastic[group]):
            rows.append([start + sample for sample in row])
    return torch.tensor(rows).view(len(noise_of), plan.stochastic.shape[1])
