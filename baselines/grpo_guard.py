"""GRPO-Guard (arXiv 2510.22319; yifan123/flow_grpo, `scripts/train_sd3_GRPO_Guard.py`).

Differs from `grpo` in the ratio, which is centred on 1 and scaled by the step's std before it is
clipped, and in the weight of a step's loss. The rest is Flow-GRPO's: kernel, independent starts,
the biased standard deviation. The kernel `cps` is refused: its log-probability lacks the factor
1 / (2 k^2) that the ratio's centring needs.

Importing this file does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from bpgo.core.policy_gradient import PolicyGradient, PolicyGradientSettings

if TYPE_CHECKING:
    from torch import Tensor

    from bpgo.core.seen import Seen, StepLoss


class GrpoGuardSettings(PolicyGradientSettings):
    """GRPO-Guard's own choices."""

    kernel: Literal["flow", "dance", "wan"]
    # Over what b = mean((mu - mu_old)^2) / (2 k^2) is averaged: a sample's latent numbers, or, as
    # released, those of all samples of a forward pass that are at the same step.
    mean_shift: Literal["sample", "batch"]
    # Of the loss; see `bpgo.core.loss.step_weight`.
    step_weight: Literal["none", "step", "velocity"]


class GrpoGuard(PolicyGradient):
    """The clipped surrogate on a normalised ratio."""

    Settings = GrpoGuardSettings
    settings: GrpoGuardSettings

    def loss(self, seen: Seen, advantage: Tensor) -> StepLoss:
        """max(-A r, -A clip(r, 1 - c, 1 + c)) / h with r = exp(k (log r + b)); logs b."""
        from bpgo.core import loss
        from bpgo.core.seen import StepLoss

        chosen = self.settings
        shift = loss.kl("gaussian", seen.step, seen.old_mean)
        if chosen.mean_shift == "batch":
            shift = _mean_of_step(shift, seen.points.steps)
        ratio = loss.normalised_ratio(seen.log_ratio, shift, seen.step.std)
        rows = loss.clipped_surrogate(ratio, advantage, chosen.clip_range)
        rows = rows * loss.step_weight(chosen.step_weight, seen.step)
        return StepLoss(
            rows, ratio, loss.outside(ratio, chosen.clip_range), {"mean_shift": shift.mean()}
        )


def _mean_of_step(values: Tensor, steps: Tensor) -> Tensor:
    """Each row's mean `[N]` over the rows that are at its step `[N]`."""
    same = (steps[:, None] == steps).to(values)
    return same @ values / same.sum(1)


ARM = GrpoGuard
