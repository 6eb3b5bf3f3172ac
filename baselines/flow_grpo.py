"""Flow-GRPO (arXiv 2505.05470; yifan123/flow_grpo, `scripts/train_sd3.py`).

Differs from `grpo` in the kernel (noise grows towards sigma = 1), independent starting noise, the
biased standard deviation, and a KL term to the base policy. `cps` and `wan` are its other samplers.
"""

from __future__ import annotations

from bpgo.core.policy_gradient import PolicyGradient


class FlowGrpo(PolicyGradient):
    """The clipped surrogate is the shared core's."""


ARM = FlowGrpo
