"""GRPO, the paper's baseline: the authors' own re-implementation of DanceGRPO.

Advantage of arXiv 2511.18919 Eq. 1 with the clipped surrogate and no KL term. It is the shared core
as it stands; its values (`config/arms/grpo.yaml`) are TeleBoost's Wan recipe.
"""

from __future__ import annotations

from bpgo.core.policy_gradient import PolicyGradient


class Grpo(PolicyGradient):
    """Every choice is the default of `bpgo.core.policy_gradient.PolicyGradient`."""


ARM = Grpo
