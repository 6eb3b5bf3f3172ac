"""The family of policy gradients: ratios of stored SDE steps. GRPO is this family as it stands.

Shapes: B samples, T steps, K trained steps a sample, N rows (a row is one step of one sample).
Importing this file does not import torch.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import model_validator

from bpgo.config.fields import Count, Fraction, Positive
from bpgo.config.settings import RolloutSettings
from bpgo.core.arm import BASE, Arm, ArmSettings
from bpgo.errors import UserError
from bpgo.records import WeightedAdvantage

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from bpgo.core.seen import Seen, StepLoss

Kernel = Literal["flow", "dance", "cps", "ddim", "wan"]
SHARING = ("cps", "ddim")  # of a step's noise, a share (eta) is drawn anew


class RatioSettings(ArmSettings):
    """What an arm with a ratio states."""

    kernel: Kernel  # of the SDE, see `bpgo.core.sde`
    noise_level: Positive  # eta, of that kernel
    # Of the regulariser, see `bpgo.core.loss.kl`.
    kl_form: Literal["flow_grpo", "gaussian", "velocity", "mean"]

    @model_validator(mode="after")
    def _no_more_noise_than_there_is(self) -> RatioSettings:
        if self.kernel in SHARING and self.noise_level > 1:
            raise ValueError(
                f"noise_level {self.noise_level:g} is above 1, at which the kernel '{self.kernel}'"
                " draws all of a step's noise anew"
            )
        return self


class SurrogateSettings(RatioSettings):
    """What an arm states that clips it."""

    clip_range: Positive  # the ratio may differ from 1 by so much


class FirstStepsSettings(SurrogateSettings):
    """What an arm states whose first steps have noise."""

    stochastic_steps: Count | None = None  # so many, from the first, may have it; None: all may


class PolicyGradientSettings(FirstStepsSettings):
    """What an arm states that trains a share of the stochastic steps."""

    trained_fraction: Fraction  # share of the stochastic steps that is trained
    step_selection: Literal["per_sample", "shared", "all"]  # each sample's own, shared, or every

    @model_validator(mode="after")
    def _all_means_all(self) -> PolicyGradientSettings:
        if self.step_selection == "all" and self.trained_fraction != 1:
            raise ValueError("step_selection 'all' trains every step: set trained_fraction to 1.0")
        return self


class Ratio(Arm):
    """A ratio of each trained step; a subclass states its loss.

    All stochastic steps are trained, in order, where a subclass says nothing else.
    """

    Settings: ClassVar[type[ArmSettings]] = RatioSettings
    settings: RatioSettings
    has_ratio: ClassVar[bool] = True

    @property
    def kernel(self) -> str:
        """Of the stochastic steps."""
        return self.settings.kernel

    @property
    def noise_level(self) -> float:
        """Its eta."""
        return self.settings.noise_level

    def trained_count(self, sizes: RolloutSettings) -> int:
        """K, the stochastic steps."""
        return sizes.steps - sizes.deterministic_tail

    def trained_steps(
        self,
        candidates: list[int],
        batch: int,
        generator: Generator,  # noqa: ARG002 (nothing is left to chance)
    ) -> Tensor:
        """Step numbers `[B, K]`: all candidates, in order."""
        import torch

        return torch.tensor(candidates).expand(batch, -1)

    def weighed(self, term: WeightedAdvantage, weights: Tensor | None) -> WeightedAdvantage:
        """Weights go into the advantages.

        w L(A) = L(w A) for w >= 0: the loss is positively homogeneous in the advantage. Two terms,
        in contrast, stay two: L(A) + c L(A') is not L(A + c A'), since each is clipped by its own
        sign.
        """
        if weights is None:
            return term
        advantage = term.advantage
        shape = (*weights.shape, *[1] * (advantage.ndim - weights.ndim))
        return replace(term, advantage=weights.to(advantage.dtype).view(shape) * advantage)

    def regulariser(self, seen: Seen) -> Tensor:
        """KL of the step to the base policy's, in the arm's form."""
        from bpgo.core import loss

        return loss.kl(self.settings.kl_form, seen.step, seen.step_of(BASE).mean)


class Surrogate(Ratio):
    """Clipped surrogate (arXiv 1707.06347) on the ratio."""

    Settings: ClassVar[type[ArmSettings]] = SurrogateSettings
    settings: SurrogateSettings

    def loss(self, seen: Seen, advantage: Tensor) -> StepLoss:
        """max(-A r, -A clip(r, 1 - c, 1 + c)); of ratios by site the mean over sites."""
        from bpgo.core import loss
        from bpgo.core.seen import StepLoss

        found = loss.clipped_surrogate(seen.ratio, advantage, self.settings.clip_range)
        rows = found.flatten(1).mean(1) if found.ndim > 1 else found
        return StepLoss(rows, seen.ratio, loss.outside(seen.ratio, self.settings.clip_range))


class FirstSteps(Surrogate):
    """Noise in the first steps alone: all that may have it, or so many."""

    Settings: ClassVar[type[ArmSettings]] = FirstStepsSettings
    settings: FirstStepsSettings

    def noisy_steps(self, sizes: RolloutSettings) -> int:
        """How many.

        Raises:
            UserError: naming the arm's key `stochastic_steps`, if fewer may.
        """
        wanted, most = self.settings.stochastic_steps, sizes.steps - sizes.deterministic_tail
        if (wanted or most) > most:
            raise UserError(
                f"stochastic_steps: {wanted} is more than the {most} steps that may have noise"
                f" (rollout.steps {sizes.steps}, deterministic_tail {sizes.deterministic_tail})"
            )
        return wanted or most

    def stochastic_steps(
        self,
        sizes: RolloutSettings,
        iteration: int,  # noqa: ARG002 (the same in each)
        generator: Generator,  # noqa: ARG002
    ) -> list[int]:
        """The first ones."""
        return list(range(self.noisy_steps(sizes)))


class PolicyGradient(FirstSteps):
    """Each sample trains a share of the stochastic steps."""

    Settings: ClassVar[type[ArmSettings]] = PolicyGradientSettings
    settings: PolicyGradientSettings

    @property
    def mixes_steps(self) -> bool:
        """Where each sample has its own."""
        return self.settings.step_selection == "per_sample"

    def trained_count(self, sizes: RolloutSettings) -> int:
        """K = max(1, int(stochastic steps * trained_fraction))."""
        return self.count_of(self.noisy_steps(sizes))

    def count_of(self, candidates: int) -> int:
        """K of so many candidate steps; `UserError` if there is none."""
        if candidates < 1:
            raise UserError("no stochastic step to train")
        return max(1, int(candidates * self.settings.trained_fraction))

    def trained_steps(self, candidates: list[int], batch: int, generator: Generator) -> Tensor:
        """Step numbers `[B, K]`, in training order.

        `per_sample`: each sample's own random choice (DanceGRPO `train_grpo_flux.py`, TeleBoost);
        `shared`: one choice for the batch; `all`: every step in order. Every selection draws the
        same numbers from `generator`, so arms with the same selection train the same steps.
        """
        import torch

        count = self.count_of(len(candidates))
        order = torch.rand(batch, len(candidates), generator=generator).argsort(dim=1)
        if self.settings.step_selection == "all":
            order = torch.arange(len(candidates)).expand(batch, -1)
        elif self.settings.step_selection == "shared":
            order = order[:1].expand(batch, -1)
        return torch.tensor(candidates)[order[:, :count]]
