"""BPGO's objective (Eq. 5, 6) as weighted advantages on one policy ratio.

Shapes: P groups, G samples a group. A weight w >= 0 of a group's loss can go into its advantages,
w L(A) = L(w A), because the clipped surrogate is positively homogeneous in the advantage. Two
advantages, in contrast, must stay two terms: L(A) + c L(A') is not L(A + c A'), since each is
clipped by its own sign.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from bpgo.records import WeightedAdvantage

if TYPE_CHECKING:
    from torch import Tensor


def objective(
    plain: Tensor,
    transformed: Tensor | None,
    weight: Tensor,
    varsigma: float,
    combine: Literal["sum", "overwrite"] = "sum",
    ras_applies_to: Literal["first", "both"] = "first",
) -> list[WeightedAdvantage]:
    """The terms of L = 1/N sum_i ( w_i L_GRPO(R_i) + varsigma L_GRPO(R~_i) ).

    Args:
        plain: advantages `[P, G]` of the rewards.
        transformed: advantages `[P, G]` of the transformed rewards; None without CRT.
        weight: w `[P]` of RAS; ones without.
        varsigma: weight of the CRT term. 0 switches CRT off, in either combination.
        combine: `sum` is the paper's; `overwrite` the released code's: only the transformed
            advantages remain, weighted by RAS.
        ras_applies_to: `first` is the paper's; `both` weighs the CRT term as well.
    """
    scale = weight[:, None].to(plain.dtype)
    if transformed is None or varsigma == 0:
        return [WeightedAdvantage(1.0, scale * plain)]
    if combine == "overwrite":
        return [WeightedAdvantage(1.0, scale * transformed)]
    second = scale * transformed if ras_applies_to == "both" else transformed
    return [WeightedAdvantage(1.0, scale * plain), WeightedAdvantage(varsigma, second)]
