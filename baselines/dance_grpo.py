"""DanceGRPO as published (arXiv 2505.07818; XueZeyue/DanceGRPO, `fastvideo/train_grpo_flux.py`).

Differs from `grpo` in what its code fixes: a constant diffusion coefficient, one start for a whole
group, a tiny epsilon, and training steps permuted for each sample on its own.
"""

from __future__ import annotations

from bpgo.core.policy_gradient import PolicyGradient


class DanceGrpo(PolicyGradient):
    """The clipped surrogate and the selection of steps are the shared core's."""


ARM = DanceGrpo
