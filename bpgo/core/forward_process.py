"""The family of forward processes: samples are noised again, and no log-probability is needed.

The rollout is the plain ODE. A trained point is x_t = (1 - t) x0 + t eps of a finished sample x0,
fresh noise eps and a noise level t of the sampler's schedule; the velocity's target is eps - x0.

Shapes: B samples, K trained points a sample. Importing this file does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import model_validator

from bpgo.config.fields import Fraction
from bpgo.config.settings import RolloutSettings
from bpgo.core.arm import BASE, Arm, ArmSettings
from bpgo.errors import UserError

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from bpgo.core.seen import Seen


class ForwardProcessSettings(ArmSettings):
    """What an arm without log-probabilities states: no kernel, no noise level, no clip range."""

    trained_fraction: Fraction  # share of the schedule's noise levels that is trained

    @model_validator(mode="after")
    def _own_starts(self) -> ForwardProcessSettings:
        if self.shared_initial_noise:
            raise ValueError(
                "shared_initial_noise: the rollout draws no noise after the start, so a group that"
                " shares its start is one sample G times: set it to false"
            )
        return self


class ForwardProcess(Arm):
    """ODE rollouts, samples noised again; a subclass states its loss."""

    Settings: ClassVar[type[ArmSettings]] = ForwardProcessSettings
    settings: ForwardProcessSettings
    noised_again: ClassVar[bool] = True
    idle_without_advantage: ClassVar[bool] = False

    @property
    def mixes_steps(self) -> bool:
        """Each sample has an order of its own."""
        return True

    def stochastic_steps(
        self,
        sizes: RolloutSettings,  # noqa: ARG002
        iteration: int,  # noqa: ARG002
        generator: Generator,  # noqa: ARG002
    ) -> list[int]:
        """None."""
        return []

    def trained_count(self, sizes: RolloutSettings) -> int:
        """K = int(trainable noise levels * trained_fraction); `UserError` if that is 0."""
        count = self.count_of(len(self.trainable(sizes, [])))
        if count < 1:
            raise UserError(
                f"trained_fraction: {self.settings.trained_fraction:g} of {sizes.steps} steps"
                " (rollout.steps) leaves no noise level to train"
            )
        return count

    def count_of(self, candidates: int) -> int:
        """K of so many candidate noise levels."""
        return int(candidates * self.settings.trained_fraction)

    def trainable(
        self,
        sizes: RolloutSettings,
        stochastic: list[int],  # noqa: ARG002
    ) -> list[int]:
        """Every noise level of the schedule, the first included."""
        return list(range(sizes.steps))

    def trained_steps(self, candidates: list[int], batch: int, generator: Generator) -> Tensor:
        """The first K of each sample's own permutation of the candidates `[B, K]`."""
        import torch

        order = torch.rand(batch, len(candidates), generator=generator).argsort(dim=1)
        return torch.tensor(candidates)[order[:, : self.count_of(len(candidates))]]

    def regulariser(self, seen: Seen) -> Tensor:
        """The squared distance of the velocity to the base policy's, `[N]`."""
        return (seen.velocity - seen.others[BASE]).square().flatten(1).mean(1)
