"""RAS, reliability-adaptive scaling between groups: how far to trust a group's rewards.

Shapes: P groups, G samples a group. Rewards and prior are in the same units; `k` is in one over
those units and `prior_variance` in their square. A NaN prior means none: the weight is then 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

SCALE_RANGE = (0.01, 10.0)  # the released code's min_adv_scale and max_adv_scale


def sigmoid_weight(mean_reward: Tensor, prior: Tensor, alpha: float, k: float) -> Tensor:
    """Eq. 2: w = 1 + alpha (2 sigmoid(k (mean - prior)) - 1), `[P]`, in [1 - alpha, 1 + alpha]."""
    weight = 1 + alpha * (2 * torch.sigmoid(k * (mean_reward - prior)) - 1)
    return weight.masked_fill(prior.isnan(), 1.0)


def bayes_reliability(
    rewards: Tensor, prior: Tensor, prior_variance: float, weight_range: tuple[float, float]
) -> Tensor:
    """The released code's reliability `[P]`: low + (high - low) P(group's true mean > prior).

    The true mean has a Normal prior around `prior`; the group's G rewards `[P, G]` with their
    unbiased variance (1 for a single sample) make it a Normal posterior. A wide prior turns this
    into a one-sided z-test, which saturates fast: with G = 8 and a standard deviation of 0.1 the
    whole range is spent within 0.08 of the prior.
    """
    count = rewards.shape[1]
    variance = rewards.var(dim=1) + 1e-8 if count > 1 else torch.ones_like(prior)
    posterior_variance = 1 / (count / variance + 1 / prior_variance)
    evidence = count * rewards.mean(dim=1) / variance + prior / prior_variance
    posterior_mean = posterior_variance * evidence
    better = torch.special.ndtr((posterior_mean - prior) / posterior_variance.sqrt())
    low, high = weight_range
    return (low + (high - low) * better).masked_fill(prior.isnan(), 1.0)


def released_scale(
    reliability: Tensor, alpha: float, scale_range: tuple[float, float] = SCALE_RANGE
) -> Tensor:
    """The released code's factor on the advantages `[P]`: 1 + alpha (w - 1), kept in a range."""
    low, high = scale_range
    return (1 + alpha * (reliability - 1)).clamp(low, high)
