"""The policy-gradient loss of one step, per sample, and its regularisers.

Shapes: N rows (a row is one stored step of one sample). Nothing here averages over rows: the
caller does.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from bpgo.core.sde import Transition

KlForm = Literal["flow_grpo", "gaussian", "velocity"]


def ratio(log_prob: Tensor, old_log_prob: Tensor) -> Tensor:
    """Importance ratio p_new / p_old `[N]` from log-probabilities `[N]`."""
    return (log_prob - old_log_prob).exp()


def clipped_surrogate(ratio: Tensor, advantage: Tensor, clip_range: float) -> Tensor:
    """PPO's pessimistic loss `[N]`: max(-A r, -A clip(r, 1 - c, 1 + c)) (arXiv 1707.06347)."""
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
    return torch.maximum(-advantage * ratio, -advantage * clipped)


def outside(ratio: Tensor, clip_range: float) -> Tensor:
    """Where a ratio lies outside 1 +- clip_range; bool, like `ratio`."""
    return (ratio.detach() - 1).abs() > clip_range


def kl(form: KlForm, policy: Transition, reference_mean: Tensor) -> Tensor:
    """Distance `[N]` of the policy's step to the reference policy's, averaged over latent numbers.

    All forms divide the squared difference of the two means, d^2:
    `gaussian` by 2 std^2, the KL of the two transitions (Flow-GRPO's paper and Wan script);
    `flow_grpo` by 2 std^2 / h, which is h times the KL (Flow-GRPO's SD3 and FLUX scripts: their
    weight beta = 0.04 belongs to this form); `velocity` by b^2, which leaves |v - v_ref|^2.
    A weight does not carry over from one form to another.
    """
    squared = (policy.mean - reference_mean).square().flatten(1).mean(1)
    if form == "velocity":
        return squared / policy.velocity_scale.flatten().square()
    if form == "flow_grpo":
        return squared / (2 * (policy.std / policy.sqrt_dt).flatten().square())
    if form == "gaussian":
        return squared / (2 * policy.std.flatten().square())
    raise ValueError(f"kl form '{form}' is unknown; known: flow_grpo, gaussian, velocity")
