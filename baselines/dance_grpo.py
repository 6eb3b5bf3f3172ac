"""DanceGRPO as published (arXiv 2505.07818; XueZeyue/DanceGRPO, `fastvideo/train_grpo_flux.py`).

Differs from `grpo` in what its code fixes: a constant diffusion coefficient, one start for a whole
group, a tiny epsilon, and training steps permuted for each sample on its own. Its HunyuanVideo
script trains the best and the worst of a larger group alone (`best_and_worst`).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Annotated, ClassVar

from pydantic import Field

from bpgo.config.settings import RolloutSettings
from bpgo.core.advantage import best_and_worst
from bpgo.core.arm import ArmSettings
from bpgo.core.policy_gradient import PolicyGradient, PolicyGradientSettings
from bpgo.errors import UserError
from bpgo.records import GroupRewards, Passes, WeightedAdvantage


class DanceGrpoSettings(PolicyGradientSettings):
    """DanceGRPO's own key."""

    # So many samples of a group are trained, half of them its best, half its worst; None: all.
    best_and_worst: Annotated[int, Field(ge=2, multiple_of=2)] | None = None


class DanceGrpo(PolicyGradient):
    """The clipped surrogate and the selection of steps are the shared core's."""

    Settings: ClassVar[type[ArmSettings]] = DanceGrpoSettings
    settings: DanceGrpoSettings

    @property
    def leaves_out_samples(self) -> bool:
        """Those between the best and the worst."""
        return self.settings.best_and_worst is not None

    def check(self, sizes: RolloutSettings) -> None:
        """`UserError` too where a group has fewer samples than are to be trained."""
        wanted = self.settings.best_and_worst
        if wanted is not None and wanted > sizes.group_size:
            raise UserError(
                f"best_and_worst: {wanted} is more than rollout.group_size, which is"
                f" {sizes.group_size}"
            )
        super().check(sizes)

    def passes(self, sizes: RolloutSettings) -> Passes:
        """In the update the mean over a group's samples, rounded up."""
        found, wanted = super().passes(sizes), self.settings.best_and_worst
        if wanted is None or self.settings.kl_weight:  # the KL term holds all samples
            return found
        return replace(found, trained=math.ceil(found.trained * wanted / sizes.group_size))

    def advantage(self, groups: GroupRewards) -> WeightedAdvantage:
        """By the statistics of the whole group."""
        term, wanted = super().advantage(groups), self.settings.best_and_worst
        if wanted is None:
            return term
        return replace(term, advantage=best_and_worst(term.advantage, wanted))


ARM = DanceGrpo
