"""Pref-GRPO's win rates -> `bpgo.core.duels`. A judge's answers are codes: 1, 2, or no winner."""

from __future__ import annotations

from typing import Any

import torch
from advantages import PRESETS
from golden_case import Case

from bpgo.core.advantage import group_advantage
from bpgo.core.duels import blended, mean_rates, win_rates

Answers = dict[str, Any]
Z_SCORE = PRESETS["dance_grpo"].model_copy(update={"clip": None})  # ddof 1, std + 1e-8


def _won(codes: torch.Tensor, case: Case) -> torch.Tensor:
    """Points `[P, G, G]` of answers `[P, pairs]`."""
    first, second = case.tensor("first"), case.tensor("second")
    size = case.arg("group_size")
    points = torch.where(codes == 1, 1.0, torch.where(codes == 2, 0.0, 0.5))
    won = torch.zeros(len(codes), size, size)
    won[:, first, second], won[:, second, first] = points, 1 - points
    return won


def win_rate(case: Case) -> Answers:
    """`_pairwise_win_rate` of the judge that names a winner, and the advantages of its rates."""
    case.choice("use_group", {True: None})
    found = win_rates(_won(case.tensor("duels"), case))
    return {"win_rate": found, "advantages": _advantages(case, found)}


def flex_blend(case: Case) -> Answers:
    """The same of the judge with dimensions; an answer that cannot be read counts overall only."""
    case.choice("apply_gdpo", {False: None})
    unread = case.tensor("unparsed")
    overall = win_rates(_won(case.tensor("overall_duels").masked_fill(unread, 0), case))
    read = _won(unread.long(), case) == 0.5  # a tie where an answer was read
    dimensions = case.tensor("dimension_duels").unbind(-1)
    rates = [win_rates(_won(codes, case), counted=read, rounded=False) for codes in dimensions]
    weights = torch.tensor(case.arg("category_weights"), dtype=torch.float64)
    mean = mean_rates(torch.stack(rates), weights)
    reward = blended(overall, mean, case.arg("dim_weight") / case.arg("overall_weight"))
    return {
        "overall": overall,
        "dim_mean": mean,
        "has_dims": ~mean.isnan(),
        "reward": reward,
        "advantages": _advantages(case, reward),
    }


def _advantages(case: Case, rates: torch.Tensor) -> torch.Tensor:
    case.rounding("advantages", rates, rates.std(dim=1))
    return group_advantage(rates, Z_SCORE)
