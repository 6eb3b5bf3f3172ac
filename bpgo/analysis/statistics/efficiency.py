"""How good a trust rule's update is, and how well its weights tell which groups are right.

A group's rewards rank its samples; where the ranking is wrong, the group's update lowers the
oracle. With a the advantages that a rule leads to, A those without one and y the oracle
(`bpgo.steps.rules`), over all groups:

    efficiency = (E[a y] / sqrt(E[a a])) / (E[A y] / sqrt(E[A A])).

The numerators say by how much the update raises the oracle to first order, the roots how long it
is: what the rule gains at equal length, relative to no rule. With weights w of groups, and
advantages of equal length in each group, that is E[w u] / (sqrt(E[w w]) E[u]) with u the group's
mean of A y. The scale of a rule's weights does not count; only how it tells groups apart does.

AUROC: the probability that a group whose ranking is right (gamma above 0) has a larger weight than
one whose ranking is not, ties counted half. Groups without gamma or weight take no part; where all
weights are equal there is no AUROC. Prompts are the units of the bootstrap.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bpgo.config.declared import AnalysisSettings
from bpgo.errors import UserError
from bpgo.seeding import numpy_generator

Floats = NDArray[np.float64]
COLUMNS = ["weight", "gain", "square", "plain_gain", "plain_square", "gamma"]
KEYS = ["experiment", "source", "rule"]
EQUAL = 1e-6  # weights that differ by less are equal


def track_statistics(
    judged: pd.DataFrame, notes: list[dict[str, Any]], analysis: AnalysisSettings
) -> pd.DataFrame:
    """One row for each experiment, source and rule, also for a rule without figures.

    Columns: efficiency and auroc, each with `_low` and `_high`; `n_prompts`, `n_groups`, `n_right`,
    `n_wrong`; `mean_weight`; `lacks` (why there are no figures), `note`. NaN: not defined.
    """
    rows = []
    parts: dict[Any, pd.DataFrame] = dict(iter(judged.groupby(KEYS, sort=False)))
    for entry in notes:
        labels = {key: entry[key] for key in KEYS}
        part = parts.get(tuple(labels.values()))
        found = _nothing() if part is None else _figures(part, analysis)
        rows.append({**labels, **found, "lacks": entry["lacks"], "note": entry["note"]})
    return pd.DataFrame(rows)


def _nothing() -> dict[str, float]:
    names = [f"{name}{end}" for name in ("efficiency", "auroc") for end in ("", "_low", "_high")]
    counts = dict.fromkeys(("n_prompts", "n_groups", "n_right", "n_wrong"), 0)
    return {**dict.fromkeys([*names, "mean_weight"], float("nan")), **counts}


def _figures(part: pd.DataFrame, analysis: AnalysisSettings) -> dict[str, float]:
    columns = {name: part[name].to_numpy(np.float64) for name in COLUMNS}
    units, prompt = np.unique(part["prompt_id"].to_numpy(str), return_inverse=True)
    if len(units) < 2:
        raise UserError(
            f"{part['experiment'].iloc[0]}: groups of one prompt say nothing about others: raise"
            " trust_groups.iterations"
        )
    random = numpy_generator(analysis.seed, "efficiency", len(units))
    shape = np.full(len(units), 1 / len(units))
    counts = random.multinomial(len(units), shape, size=analysis.bootstrap_samples).astype(float)
    sums = np.stack(
        [
            np.bincount(prompt, columns[name], minlength=len(units))
            for name in ("gain", "square", "plain_gain", "plain_square")
        ]
    )
    known = np.isfinite(columns["gamma"]) & np.isfinite(columns["weight"])
    weight, right = columns["weight"][known], columns["gamma"][known] > 0
    told = AreaUnderCurve(weight, right)
    tail = (1 - analysis.confidence) / 2
    tails = [tail, 1 - tail]
    low, high = np.nanquantile(efficiency(counts @ sums.T), tails)
    area, area_low, area_high = float(told(np.ones((1, len(weight))))[0]), np.nan, np.nan
    if np.isfinite(area):
        area_low, area_high = np.nanquantile(told(counts[:, prompt[known]]), tails)
    return {
        "efficiency": float(efficiency(sums.sum(axis=1)[None])[0]),
        "efficiency_low": float(low),
        "efficiency_high": float(high),
        "auroc": area,
        "auroc_low": float(area_low),
        "auroc_high": float(area_high),
        "mean_weight": float(np.nanmean(columns["weight"])),
        "n_prompts": len(units),
        "n_groups": len(part),
        "n_right": int(right.sum()),
        "n_wrong": int((~right).sum()),
    }


def efficiency(sums: Floats) -> Floats:
    """`[B]` of sums over groups `[B, 4]` of a y, a a, A y, A A; NaN where one length is 0."""
    gain, square, plain_gain, plain_square = sums.T
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((gain / np.sqrt(square)) / (plain_gain / np.sqrt(plain_square)))


class AreaUnderCurve:
    """The AUROC of `weight` `[N]` for `right` `[N]` bool, for any counts of the N groups."""

    def __init__(self, weight: Floats, right: NDArray[np.bool_]) -> None:
        self.order = np.argsort(weight, kind="stable")
        ranked = weight[self.order]
        self.right = right[self.order]
        near = np.diff(ranked) <= EQUAL * max(1.0, float(np.abs(ranked).max(initial=0)))
        self.starts = np.flatnonzero(np.r_[True, ~near]) if len(ranked) else np.empty(0, np.intp)

    def __call__(self, counts: Floats) -> Floats:
        """`[B]` for counts `[B, N]`; NaN where all weights are equal or one kind lacks."""
        if len(self.starts) < 2:
            return np.full(len(counts), np.nan)
        ordered = counts[:, self.order]
        right = np.add.reduceat(ordered * self.right, self.starts, axis=1)
        wrong = np.add.reduceat(ordered * ~self.right, self.starts, axis=1)
        below = np.cumsum(wrong, axis=1) - wrong
        pairs = right.sum(axis=1) * wrong.sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            area = (right * (below + wrong / 2)).sum(axis=1) / pairs
        return np.asarray(np.where(pairs > 0, area, np.nan))
