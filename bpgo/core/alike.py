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

    groups = [each.unflatten(0, (-1, group_size)) for each in (plan.noise_of, plan.stochastic)]
    starts = torch.arange(0, len(plan.noise_of), group_size)[:, None, None]
    if all(bool((each == each[0]).all()) for each in groups):
        groups = [each[:1] for each in groups]
    noise_of, stochastic = (each.tolist() for each in groups)
    rows = torch.tensor(list(map(first_alike, noise_of, stochastic)))  # [P or 1, G, T]
    return (rows + starts).flatten(0, 1)
