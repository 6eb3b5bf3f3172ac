"""Duels between the samples of a group, and the share that each wins (arXiv 2508.20751).

Shapes: P groups, G samples a group. `won` `[P, G, G]` has the points of the row's sample in its
duel with the column's: 1 won, 0 lost, 1/2 a tie or an answer that nobody can read.
"""

from __future__ import annotations

import torch
from torch import Tensor


def duels(rewards: Tensor, noise: float, luck: Tensor) -> Tensor:
    """Every pair once: `won` `[P, G, G]` by rewards `[P, G]`.

    The higher reward wins, and equal ones tie. With `noise` above 0, in the reward's units, the
    judge errs as annotators do (Bradley-Terry): the first wins with probability
    sigmoid((r1 - r2) / noise). `luck` `[P, G, G]` in [0, 1) decides, one number for each pair.
    """
    values = rewards.double()
    ahead = values[:, :, None] - values[:, None, :]
    if not noise:
        return (ahead.sign() + 1) / 2
    pairs = torch.ones_like(ahead).triu(1)
    first = pairs * (luck.to(ahead) < (ahead / noise).sigmoid())
    return first + ((1 - first) * pairs).transpose(1, 2)


def win_rates(won: Tensor, counted: Tensor | None = None, rounded: bool = True) -> Tensor:
    """Share of its duels that each sample wins `[P, G]`, float64; `rounded` to .001, as published.

    `counted` `[P, G, G]` bool leaves duels out; None: all count. NaN where a sample has none.
    """
    other = ~torch.eye(won.shape[-1], dtype=torch.bool, device=won.device)
    held = (other if counted is None else other & counted).expand_as(won)
    found = torch.where(held, won.double(), 0.0).sum(dim=-1) / held.sum(dim=-1)
    return found.round(decimals=3) if rounded else found


def mean_rates(rates: Tensor, weights: Tensor) -> Tensor:
    """The mean `[P, G]` of win rates `[K, P, G]` by K criteria with `weights` `[K]`, to .001.

    A rate that is NaN does not count; NaN where a sample has none.
    """
    held = weights.view(-1, 1, 1).to(rates) * ~rates.isnan()
    return ((held * rates.nan_to_num()).sum(dim=0) / held.sum(dim=0)).round(decimals=3)


def blended(overall: Tensor, criteria: Tensor, share: float) -> Tensor:
    """(overall + share * criteria) / (1 + share) `[P, G]`; overall alone where criteria are NaN."""
    return torch.where(criteria.isnan(), overall, (overall + share * criteria) / (1 + share))
