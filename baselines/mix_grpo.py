"""MixGRPO (arXiv 2507.21802; Tencent-Hunyuan/MixGRPO, `fastvideo/train_grpo_flux.py`).

Differs from `grpo` in its steps: only those in a window that moves along the schedule have noise,
and all of them are trained; the others are ODE steps. Several rewards are normalised each for
itself before they are added up. `flash` shortens the way from the window to the sample.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from bpgo.config.fields import Fraction
from bpgo.config.settings import RolloutSettings
from bpgo.core.arm import ArmSettings
from bpgo.core.parts import Combine, SeveralRewards
from bpgo.core.policy_gradient import Surrogate, SurrogateSettings
from bpgo.core.window import WindowSettings, shortened
from bpgo.records import Passes, Plan

if TYPE_CHECKING:
    from torch import Generator


class MixGrpoSettings(SurrogateSettings):
    """MixGRPO's own keys."""

    window: WindowSettings  # steps with noise, which are trained
    combine: Combine  # of several rewards: what is added up
    flash: Fraction | None  # share of the noise levels after the window that is visited; None: all


class MixGrpo(SeveralRewards, Surrogate):
    """A window of SDE steps in an ODE rollout."""

    Settings: ClassVar[type[ArmSettings]] = MixGrpoSettings
    settings: MixGrpoSettings

    def stochastic_steps(
        self, sizes: RolloutSettings, iteration: int, generator: Generator
    ) -> list[int]:
        """The window."""
        chosen = self.settings.window
        return chosen.steps(iteration, chosen.end(sizes, "window"), generator)

    def trained_count(self, sizes: RolloutSettings) -> int:  # noqa: ARG002
        """The window's size; less where the schedule's end cuts it short."""
        return self.settings.window.size

    def fewest_trained(self, sizes: RolloutSettings) -> int:
        """Of the place that is cut shortest."""
        end = self.settings.window.end(sizes, "window")
        return min(self.settings.window.size, end - max(self.settings.window.places(end)))

    def plan(self, sizes: RolloutSettings, iteration: int, generator: Generator) -> Plan:
        """With `flash` the rollout leaves out noise levels after the window."""
        made, share = super().plan(sizes, iteration, generator), self.settings.flash
        if share is None:
            return made
        return replace(made, tail=shortened(int(made.trained.max()) + 1, sizes.steps, share))

    def passes(self, sizes: RolloutSettings) -> Passes:
        """With `flash` the rollout's mean over the window's places, rounded up."""
        found, chosen = super().passes(sizes), self.settings.window
        end = chosen.end(sizes, "window")
        if self.settings.flash is None:
            return found
        after = [min(start + chosen.size, end) for start in chosen.places(end)]
        steps = [at + len(shortened(at, sizes.steps, self.settings.flash)) - 1 for at in after]
        return replace(found, rollout=math.ceil(sum(steps) / len(steps)))


ARM = MixGrpo
