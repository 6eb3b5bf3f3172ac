"""DGPO (arXiv 2510.08425; Luo-Yihong/DGPO, `scripts/train_sd3_dgpo.py`).

Differs from `grpo` in comparing whole groups: each sample's flow matching loss is weighed by its
advantage, and the group by how far it already is from the preference that its advantages state. The
samples of a group are noised alike. A fast average of the policy masks samples that went too far.

Shapes: N rows, a row is one sample at one noise level. Importing this file does not import torch.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal

from bpgo.config.fields import Positive
from bpgo.config.settings import RolloutSettings
from bpgo.core.arm import BASE, Average
from bpgo.core.forward_process import (
    ForwardProcess,
    ForwardProcessSettings,
    matching_error,
    rising,
)
from bpgo.records import Plan

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from bpgo.core.seen import Seen, StepLoss

FAST = "fast"  # the average that draws, and that a sample is masked by


class DgpoSettings(ForwardProcessSettings):
    """DGPO's own choices."""

    beta: Positive  # how sharply a group is weighed by what it has reached
    reference: Literal["base", "fast"]  # what it is reached from
    mask_range: Positive | None  # of exp(d_fast - d); beyond it a sample has no gradient; None: all


class Dgpo(ForwardProcess):
    """A preference of groups."""

    Settings = DgpoSettings
    settings: DgpoSettings
    draws_with: ClassVar[str | None] = FAST
    whole_groups: ClassVar[bool] = True

    def averages(self) -> dict[str, Average]:
        """One that keeps min(0.001 n, 0.3) of itself at the n-th optimizer step, from n = 0."""
        return {FAST: Average(rising(1, 0, 0.001, 0.3), every="step")}

    def others(self) -> list[str]:
        """The fast average, and the base for the regulariser or as the reference."""
        based = self.settings.kl_weight or self.settings.reference == BASE
        return [FAST, *([BASE] if based else [])]

    def plan(self, sizes: RolloutSettings, iteration: int, generator: Generator) -> Plan:
        """All samples of a group have the noise of its first."""
        made = super().plan(sizes, iteration, generator)
        return replace(made, fresh_of=made.trained.new_zeros(made.trained.shape))

    def loss(self, seen: Seen, advantage: Tensor) -> StepLoss:
        """Loss w A d: d the matching error, w = sigmoid(beta mean A (d - d_ref)) of the group."""
        from bpgo.core.seen import StepLoss

        chosen, error = self.settings, matching_error(seen, seen.velocity)
        fast, start = (matching_error(seen, seen.others[v]) for v in (FAST, chosen.reference))
        ratio, limit = (fast - error).detach().exp(), chosen.mask_range or float("inf")
        masked = ((ratio > 1 + limit) & (advantage > 0)) | ((ratio < 1 - limit) & (advantage <= 0))
        gains = seen.by_group(advantage * (error.detach() - start))
        weight = (chosen.beta * gains.mean(1, keepdim=True)).sigmoid().expand_as(gains).flatten()
        rows = weight * advantage * error.where(~masked, error.detach())
        return StepLoss(rows, clipped=masked, scalars={"group_weight": weight.mean()})


ARM = Dgpo
