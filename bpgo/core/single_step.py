"""The family of one noisy step: all samples of a prompt take one step with noise, the rest without.

What a reward says of a sample is then said of that step, and every sample trains it alone. Prompts
have steps of their own. Loss weights of steps are here too.

Shapes: P groups, G samples a group, B = P * G, T steps. Importing this file does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from bpgo.config.fields import Positive
from bpgo.config.settings import RolloutSettings
from bpgo.core.arm import ArmSettings
from bpgo.core.policy_gradient import FirstSteps, FirstStepsSettings
from bpgo.records import GroupRewards, Plan, WeightedAdvantage

if TYPE_CHECKING:
    from torch import Generator, Tensor

Form = Literal["none", "std", "gradient"]
Norm = Literal["schedule", "drawn"]


class SingleStepSettings(FirstStepsSettings):
    """What an arm with one noisy step a prompt states."""

    # Which step each prompt of a batch has: `even` deals them out, each as often as every other (or
    # once more); `random` draws each prompt's on its own.
    draw: Literal["even", "random"]
    step_weight: Form  # of the loss; see `bpgo.core.loss.step_weight`
    # What the weights are divided by: their mean over the schedule (of it the first
    # `stochastic_steps`), or over the samples of a batch; a number multiplies them instead.
    weight_norm: Norm | Positive


class SingleStep(FirstSteps):
    """One noisy step a prompt, which all its samples train."""

    Settings: ClassVar[type[ArmSettings]] = SingleStepSettings
    settings: SingleStepSettings

    @property
    def mixes_steps(self) -> bool:
        """Prompts have steps of their own."""
        return True

    def trained_count(self, sizes: RolloutSettings) -> int:
        """One; `UserError` if fewer steps may have noise than the arm asks for."""
        self.noisy_steps(sizes)
        return 1

    def plan(self, sizes: RolloutSettings, iteration: int, generator: Generator) -> Plan:
        """Each prompt's step for all its samples."""
        import torch

        steps = self.stochastic_steps(sizes, iteration, generator)
        prompts, group = sizes.prompts_per_iteration, sizes.group_size
        if self.settings.draw == "even":
            order = torch.randperm(len(steps), generator=generator)
            drawn = order[torch.arange(prompts) % len(steps)]
        else:
            drawn = torch.randint(len(steps), (prompts,), generator=generator)
        trained = torch.tensor(steps)[drawn].repeat_interleave(group)[:, None]
        noisy = torch.zeros(len(trained), sizes.steps, dtype=torch.bool).scatter_(1, trained, True)
        return Plan(noisy, torch.tensor(self.noise_of(sizes)).repeat(prompts, 1), trained)

    def advantage(self, groups: GroupRewards) -> WeightedAdvantage:
        """`[P, G]`: the group's, times the weight of its step, as the loss is homogeneous in it."""
        term, plan = super().advantage(groups), groups.plan
        if self.settings.step_weight == "none":
            return term
        assert plan is not None
        assert groups.sigmas is not None
        steps = plan.trained[:, 0].view(term.advantage.shape)
        found = self.step_weights(groups.sigmas, steps.flatten()).to(term.advantage)
        return self.weighed(term, found[steps.to(found.device)])

    def step_weights(self, sigmas: Tensor, drawn: Tensor) -> Tensor:
        """Weights of all steps `[T]`, float64, of noise levels `[T+1]`.

        `drawn` `[B]` are the steps of a batch's samples.
        """
        from bpgo.core import loss
        from bpgo.core.sde import transition

        chosen, levels = self.settings, sigmas.double()
        zeros = levels.new_zeros(len(levels) - 1, 1)
        moved = transition(
            self.kernel,
            zeros,
            zeros,
            levels[:-1],
            levels[1:],
            self.noise_level,
            sigma_max=levels[1],
        )
        found = loss.step_weight(chosen.step_weight, moved)
        if isinstance(chosen.weight_norm, float):
            return found * chosen.weight_norm
        if chosen.weight_norm == "drawn":
            return found / found[drawn.to(found.device)].mean()
        return found / found[: chosen.stochastic_steps].mean()
