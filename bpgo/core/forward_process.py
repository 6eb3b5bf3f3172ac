"""The family of forward processes: samples are noised again, and no log-probability is needed.

The rollout is the plain ODE. A trained point is x_t = (1 - t) x0 + t eps of a finished sample x0,
fresh noise eps and a noise level t of the sampler's schedule; the velocity's target is eps - x0.

Shapes: B samples, K trained points a sample. Importing this file does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from bpgo.config.settings import Fraction, RolloutSettings
from bpgo.core.arm import BASE, Arm, ArmSettings
from bpgo.errors import UserError

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from bpgo.core.seen import Seen


class ForwardProcessSettings(ArmSettings):
    """What an arm without log-probabilities states: no kernel, no noise level, no clip range."""

    trained_fraction: Fraction  # share of the schedule's noise levels that is trained


class ForwardProcess(Arm):
    """ODE rollouts, samples noised again; a subclass states its loss."""

    Settings: ClassVar[type[ArmSettings]] = ForwardProcessSettings
    settings: ForwardProcessSettings
    noised_again: ClassVar[bool] = True
    idle_without_advantage: ClassVar[bool] = False

    def stochastic_steps(
        self,
        sizes: RolloutSettings,  # noqa: ARG002
        iteration: int,  # noqa: ARG002
        generator: Generator,  # noqa: ARG002
    ) -> list[int]:
        """None."""
        return []

    def trained_count(self, sizes: RolloutSettings) -> int:
        """K = int(steps * trained_fraction); `UserError` if that is 0."""
        count = int(sizes.steps * self.settings.trained_fraction)
        if count < 1:
            raise UserError(
                f"trained_fraction: {self.settings.trained_fraction:g} of {sizes.steps} steps"
                " (rollout.steps) leaves no noise level to train"
            )
        return count

    def trainable(
        self,
        sizes: RolloutSettings,
        stochastic: list[int],  # noqa: ARG002
    ) -> list[int]:
        """The first K noise levels: the schedule's last, at which little noise is left, go."""
        return list(range(self.trained_count(sizes)))

    def trained_steps(self, candidates: list[int], batch: int, generator: Generator) -> Tensor:
        """The candidates `[B, K]` in a random order, one for the whole batch."""
        import torch

        order = torch.randperm(len(candidates), generator=generator)
        return torch.tensor(candidates)[order].expand(batch, -1)

    def regulariser(self, seen: Seen) -> Tensor:
        """The squared distance of the velocity to the base policy's, `[N]`."""
        return (seen.velocity - seen.others[BASE]).square().flatten(1).mean(1)
