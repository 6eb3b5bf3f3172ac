"""DanceGRPO as published (arXiv 2505.07818; XueZeyue/DanceGRPO, `fastvideo/train_grpo_flux.py`).

Differs from `grpo` in what its code fixes: a constant diffusion coefficient, one start for a whole
group, a tiny epsilon, and training steps permuted for each sample on its own.
"""

from __future__ import annotations

from typing import Literal

from bpgo.config.settings import Fraction
from bpgo.core.advantage import PRESETS, AdvantageSettings
from bpgo.core.policy_gradient import PolicyGradient, PolicyGradientSettings


class DanceGrpoSettings(PolicyGradientSettings):
    """DanceGRPO's choices as defaults."""

    kernel: Literal["dance"] = "dance"
    shared_initial_noise: bool = True
    trained_fraction: Fraction = 0.6
    step_selection: Literal["shared", "per_sample", "all"] = "per_sample"
    advantage: AdvantageSettings = PRESETS["dance_grpo"]


class DanceGrpo(PolicyGradient):
    """The clipped surrogate and the selection of steps are the shared core's."""

    Settings = DanceGrpoSettings


ARM = DanceGrpo
