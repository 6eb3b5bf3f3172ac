"""The policy-gradient loss of one step, per sample, and its regularisers.

Shapes: N rows (a row is one stored step of one sample). Nothing here averages over rows: the
caller does.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from bpgo.core.sde import Transition

KlForm = Literal["flow_grpo", "gaussian", "velocity", "mean"]
StepWeight = Literal["none", "step", "velocity", "std", "gradient"]


def ratio(log_prob: Tensor, old_log_prob: Tensor) -> Tensor:
    """Importance ratio p_new / p_old `[N]` from log-probabilities `[N]`."""
    return (log_prob - old_log_prob).exp()


def clipped_surrogate(ratio: Tensor, advantage: Tensor, clip_range: float) -> Tensor:
    """PPO's pessimistic loss `[N]`: max(-A r, -A clip(r, 1 - c, 1 + c)) (arXiv 1707.06347)."""
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
    return torch.maximum(-advantage * ratio, -advantage * clipped)


def normalised_ratio(log_ratio: Tensor, mean_shift: Tensor, std: Tensor) -> Tensor:
    """GRPO-Guard's ratio `[N]`: exp(k (log r + b)) (arXiv 2510.22319 Eq. 8).

    b `[N]` is mean((mu - mu_old)^2) / (2 k^2), which log r is too low by on average, and k `[N]`
    (or `[N, 1, ...]`) the step's full std. Left in the exponent is the mean of (mu - mu_old) z, z
    being the noise that was drawn: centred on 0, and as wide at every noise level.
    """
    return ((log_ratio + mean_shift) * std.flatten()).exp()


def step_weight(form: StepWeight, policy: Transition) -> Tensor:
    """What the loss of a step is multiplied by, `[N]`.

    With h the step, k its std, b the velocity's share of its mean: `step` is 1 / h (GRPO-Guard,
    released); `velocity` is |b| / h^2 (its paper's form for every kernel, arXiv 2510.22319 Eq. 12,
    of which Flow-GRPO's constant 1 + eta^2 / 2 is left out in `step`); `std` is k (TempFlow-GRPO,
    arXiv 2508.04324 Eq. 8); `gradient` is k / |b|, one over the size of the gradient of log p by
    the velocity (Flash-GRPO); `none` is 1.
    """
    h = policy.sqrt_dt.flatten().square()
    if form == "none":
        return torch.ones_like(h)
    if form == "step":
        return 1 / h
    if form == "velocity":
        return policy.velocity_scale.flatten().abs() / h.square()
    if form == "std":
        return policy.std.flatten()
    if form == "gradient":
        return (policy.std / policy.velocity_scale.abs()).flatten()
    raise ValueError(f"step weight '{form}' is unknown; known: {', '.join(get_args(StepWeight))}")


def outside(ratio: Tensor, clip_range: float) -> Tensor:
    """Where a ratio lies outside 1 +- clip_range; bool, like `ratio`."""
    return (ratio.detach() - 1).abs() > clip_range


def kl(form: KlForm, policy: Transition, reference_mean: Tensor) -> Tensor:
    """Distance `[N]` of the policy's step to the reference policy's, averaged over latent numbers.

    All forms divide the squared difference of the two means, d^2:
    `gaussian` by 2 std^2, the KL of the two transitions (Flow-GRPO's paper and Wan script);
    `flow_grpo` by 2 std^2 / h, which is h times the KL (Flow-GRPO's SD3 and FLUX scripts: their
    weight beta = 0.04 belongs to this form); `velocity` by b^2, which leaves |v - v_ref|^2; `mean`
    by nothing (Flow-CPS, whose log-probability lacks the variance too).
    A weight does not carry over from one form to another.
    """
    squared = (policy.mean - reference_mean).square().flatten(1).mean(1)
    if form == "mean":
        return squared
    if form == "velocity":
        return squared / policy.velocity_scale.flatten().square()
    if form == "flow_grpo":
        return squared / (2 * (policy.std / policy.sqrt_dt).flatten().square())
    if form == "gaussian":
        return squared / (2 * policy.std.flatten().square())
    raise ValueError(f"kl form '{form}' is unknown; known: flow_grpo, gaussian, velocity, mean")
