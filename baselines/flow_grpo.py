"""Flow-GRPO (arXiv 2505.05470; yifan123/flow_grpo, `scripts/train_sd3.py`).

Differs from `grpo` in the kernel (noise grows towards sigma = 1), independent starting noise, the
biased standard deviation, and a KL term to the base policy. `cps` and `wan` are its other samplers.
"""

from __future__ import annotations

from typing import Literal

from bpgo.config.settings import NonNegative
from bpgo.core.advantage import PRESETS, AdvantageSettings
from bpgo.core.policy_gradient import PolicyGradient, PolicyGradientSettings


class FlowGrpoSettings(PolicyGradientSettings):
    """Flow-GRPO's choices as defaults."""

    kernel: Literal["flow", "cps", "wan"] = "flow"
    shared_initial_noise: bool = False
    advantage: AdvantageSettings = PRESETS["flow_grpo"]
    kl_weight: NonNegative = 0.04
    kl_form: Literal["flow_grpo", "gaussian", "velocity"] = "flow_grpo"


class FlowGrpo(PolicyGradient):
    """The clipped surrogate is the shared core's."""

    Settings = FlowGrpoSettings


ARM = FlowGrpo
