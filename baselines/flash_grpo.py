"""Flash-GRPO (arXiv 2605.15980; Shredded-Pork/Flash-GRPO, `scripts/train_wanx2_1_flash.py`).

Differs from `grpo` in that all samples of a prompt have noise at one step, drawn for the prompt,
and train that step alone, so samples of a group are compared at equal steps. The loss weighs so
that every step's gradient counts alike. Its mathematics is in `bpgo.core.single_step`.
"""

from __future__ import annotations

from bpgo.core.single_step import SingleStep


class FlashGrpo(SingleStep):
    """Drawing and weights are the family's."""


ARM = FlashGrpo
