"""TempFlow-GRPO (arXiv 2508.04324; Shredded-Pork/TempFlow-GRPO, `scripts/train_sd3_pr.py`).

Differs from `grpo` in that a reward is credited to one step: a group is families of children that
share their path without noise up to a step, take that step with noise of their own, and go on
without. The loss weighs as the step is noisy. Its mathematics is in `bpgo.core.single_step`.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from bpgo.config.settings import RolloutSettings
from bpgo.core.arm import ArmSettings
from bpgo.core.single_step import SingleStep, SingleStepSettings
from bpgo.errors import UserError


class TempFlowGrpoSettings(SingleStepSettings):
    """The families."""

    shared_initial_noise: Literal[False]  # families start apart; a family shares its start
    children: Annotated[int, Field(ge=2)]  # samples of a family; a divisor of rollout.group_size


class TempFlowGrpo(SingleStep):
    """Families that part at one step."""

    Settings: ClassVar[type[ArmSettings]] = TempFlowGrpoSettings
    settings: TempFlowGrpoSettings

    def check(self, sizes: RolloutSettings) -> None:
        """`UserError` too where a group is no whole number of families."""
        if sizes.group_size % self.settings.children:
            raise UserError(
                f"children: {self.settings.children} does not divide rollout.group_size, which is"
                f" {sizes.group_size}: a group is families of so many samples"
            )
        super().check(sizes)

    def noise_of(self, sizes: RolloutSettings) -> list[list[int]]:
        """Its family's first sample's start, and its own noise."""
        own = super().noise_of(sizes)
        for sample, row in enumerate(own):
            row[0] = sample - sample % self.settings.children
        return own


ARM = TempFlowGrpo
