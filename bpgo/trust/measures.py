"""What several rules measure: ranks, the members of an ensemble, weights of mean 1.

Shapes: P groups, G samples a group, M members. Importing this file does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bpgo.errors import UserError
from bpgo.records import GroupRewards

if TYPE_CHECKING:
    from torch import Tensor


def members(groups: GroupRewards, rule: str) -> dict[str, Tensor]:
    """The parts of the training reward by name, `[P, G]` float64 each.

    Raises:
        UserError: if the training reward is no sum of two rewards or more.
    """
    if len(groups.parts) < 2:
        raise UserError(
            f"trust rule '{rule}' compares the parts of the training reward, and it has"
            f" {len(groups.parts)}: train on a reward of kind weighted_sum with two parts or more"
        )
    return {name: part.double() for name, part in groups.parts.items()}


def average_ranks(values: Tensor) -> Tensor:
    """Ranks from 1 (lowest) along the last dimension, float64; equal values share their mean."""
    below = (values[..., None, :] < values[..., :, None]).sum(dim=-1)
    equal = (values[..., None, :] == values[..., :, None]).sum(dim=-1)
    return below.double() + (equal.double() + 1) / 2


def spearman(left: Tensor, right: Tensor) -> Tensor:
    """Rank correlation along the last dimension, in [-1, 1]; 0 where one side is constant."""
    ranks = [average_ranks(values) for values in (left, right)]
    first, second = (rank - rank.mean(dim=-1, keepdim=True) for rank in ranks)
    size = (first.square().sum(dim=-1) * second.square().sum(dim=-1)).sqrt()
    found = (first * second).sum(dim=-1) / size.clamp(min=1e-12)
    return found.clamp(-1, 1).where(size > 0, size.new_zeros(()))


def goodman_kruskal(left: Tensor, right: Tensor) -> Tensor:
    """(C - D) / (C + D) along the last dimension, in [-1, 1]; C, D: pairs in like, unlike order.

    Pairs that are tied on either side do not count (Goodman and Kruskal 1954); NaN without others.
    """
    first, second = (
        (values[..., None, :] - values[..., :, None]).double().sign() for values in (left, right)
    )
    product = first * second
    counted = product.abs().sum(dim=(-2, -1))
    return product.sum(dim=(-2, -1)) / counted.masked_fill(counted == 0, float("nan"))


def mean_one(weights: Tensor) -> Tensor:
    """Weights `[P]` >= 0 divided by their mean, so in [0, P]; all 1 where all are 0."""
    mean = weights.mean()
    return weights / mean if mean > 0 else weights.new_ones(weights.shape)
