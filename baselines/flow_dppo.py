"""Flow-DPPO (arXiv 2606.11025; Tencent-Hunyuan/UniRL, `unirl/algorithms/flowdppo.py`).

Differs from `grpo` in its trust region: not the ratio is clipped, but a step whose mean has moved
too far is masked where it would move on. A few steps, drawn anew in each iteration from the
schedule's first part, have noise; all of these are trained.

Importing this file does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bpgo.config.fields import Count, Fraction, Positive
from bpgo.config.settings import RolloutSettings
from bpgo.core.policy_gradient import Ratio, RatioSettings
from bpgo.errors import UserError

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from bpgo.core.seen import Seen, StepLoss


class FlowDppoSettings(RatioSettings):
    """Flow-DPPO's own choices."""

    mask_threshold: Positive  # tau, of the KL divergence of a step, averaged over latent numbers
    noisy_steps: Count  # so many steps have noise, drawn from the first ones
    noisy_fraction: Fraction  # share of the schedule, from its start, that they are drawn from


class FlowDppo(Ratio):
    """A mask in the place of the clip."""

    Settings = FlowDppoSettings
    settings: FlowDppoSettings

    def trained_count(self, sizes: RolloutSettings) -> int:
        """K, the steps with noise; `UserError` if there are not as many."""
        count, most = self.settings.noisy_steps, self.first_part(sizes)
        if count > most:
            raise UserError(
                f"noisy_steps: {count} is more than the {most} steps that they are drawn from"
                f" (noisy_fraction {self.settings.noisy_fraction:g} of {sizes.steps} rollout.steps,"
                f" without the last {sizes.deterministic_tail})"
            )
        return count

    def first_part(self, sizes: RolloutSettings) -> int:
        """How many steps, from the first, may have noise."""
        part = int(sizes.steps * self.settings.noisy_fraction)
        return min(part, sizes.steps - sizes.deterministic_tail)

    def stochastic_steps(
        self,
        sizes: RolloutSettings,
        iteration: int,  # noqa: ARG002 (`generator` is named by it)
        generator: Generator,
    ) -> list[int]:
        """As many of the first part, the same for all samples."""
        import torch

        order = torch.randperm(self.first_part(sizes), generator=generator)
        return sorted(order[: self.trained_count(sizes)].tolist())

    def loss(self, seen: Seen, advantage: Tensor) -> StepLoss:
        """-A r; 0 where the KL divergence is tau or more and r is beyond 1 in A's direction."""
        from bpgo.core import loss
        from bpgo.core.seen import StepLoss

        moved = loss.kl("gaussian", seen.step, seen.old_mean)
        onwards = (seen.ratio - 1) * advantage > 0
        masked = onwards & (moved >= self.settings.mask_threshold)
        rows = (-advantage * seen.ratio).masked_fill(masked, 0.0)
        return StepLoss(rows, seen.ratio, masked, {"mean_shift": moved.mean()})


ARM = FlowDppo
