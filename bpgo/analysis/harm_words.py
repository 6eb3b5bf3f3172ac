"""Sentences of over-optimization and harm for the report, made from the numbers."""

from __future__ import annotations

from typing import Any

import pandas as pd

from bpgo.analysis import roles
from bpgo.analysis.roles import arm_title, reward_title
from bpgo.analysis.tables.format import interval_text, number
from bpgo.config.settings import Settings


def harm_sentences(settings: Settings, frames: dict[str, pd.DataFrame]) -> list[str]:
    """One paragraph an experiment: turning points, the worst tenth, spread and distance."""
    found = []
    for experiment, entry in settings.experiments.items():
        parts = [
            *_turning(settings, frames["turning"], experiment),
            *_tail(settings, frames["harm"], experiment),
            *_spread(settings, frames["harm"], experiment),
        ]
        if parts:
            found.append(f"{entry.title}. {' '.join(parts)}")
    return found


def _turning(settings: Settings, turning: pd.DataFrame, experiment: str) -> list[str]:
    rows = turning[turning["experiment"] == experiment] if len(turning) else turning
    rows = rows[rows["arm"].isin(settings.experiments[experiment].arms)] if len(rows) else rows
    if rows.empty:
        return []
    metric = reward_title(settings, roles.main_metric(settings, experiment))
    turned = [
        f"{arm_title(settings, row['arm'])} from iteration {int(row['iteration'])}"
        f" {interval_text(row['iteration_low'], row['iteration_high'], digits=0)}"
        for _, row in rows[rows["turned"]].iterrows()
    ]
    if not turned:
        return [f"No arm has a resolved turning point of {metric} ({len(rows)} arms)."]
    return [f"{metric} falls while the training reward rises: {', '.join(turned)}."]


def _row(settings: Settings, harm: pd.DataFrame, experiment: str, measure: str) -> Any:
    """The reference arm's row of a measure, or None."""
    if harm.empty:
        return None
    arm = settings.analysis.reference_arm
    keep = (harm["experiment"] == experiment) & (harm["arm"] == arm) & (harm["measure"] == measure)
    return harm[keep].iloc[0] if keep.any() else None


def _tail(settings: Settings, harm: pd.DataFrame, experiment: str) -> list[str]:
    row = _row(settings, harm, experiment, "worst_tenth_crossed")
    if row is None:
        return []
    name = arm_title(settings, settings.analysis.reference_arm)
    return [
        f"On the tenth of the prompts that its other seeds harm most, {name} changes the main"
        f" metric by {number(row['mean'], signed=True, digits=2)} base sd"
        f" {interval_text(row['low'], row['high'], signed=True, digits=2)}."
    ]


def _spread(settings: Settings, harm: pd.DataFrame, experiment: str) -> list[str]:
    row = _row(settings, harm, experiment, "vendi")
    if row is None:
        return []
    limits = (row["to_base_simultaneous_low"], row["to_base_simultaneous_high"])
    name = arm_title(settings, settings.analysis.reference_arm)
    return [
        f"Of samples of one prompt {name} changes the effective number of different ones (Vendi"
        f" score) by {number(row['to_base_difference'], signed=True, digits=2)}"
        f" {interval_text(*limits, signed=True, digits=2)}."
    ]
