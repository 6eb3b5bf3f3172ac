"""A search of training settings, from what was measured of each candidate with each seed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from bpgo.config.search import ANCHORS, GOOD, IDLE

LAST = 3  # evaluations, of which a run's final gain is the mean


def course_rows(found: list[dict[str, Any]]) -> pd.DataFrame:
    """Rows (candidate, seed, anchor, iteration, gain, rollout, clipped), one an evaluation."""
    rows = [
        {"candidate": one["candidate"], "seed": one["seed"], "anchor": anchor, **point}
        for one in found
        for anchor in ANCHORS
        for point in one["anchors"][anchor]["course"]
    ]
    return pd.DataFrame(rows)


def final_gain(course: list[dict[str, float]]) -> float:
    """Of a run: the mean over its last evaluations, because one policy's score jitters."""
    return float(np.mean([point["gain"] for point in course[-LAST:]]))


def figure_of_merit(gains: list[float]) -> float:
    """The mean gain of the oracle anchor over what seeds do to a difference of two such arms.

    gains: of each seed. A difference of two arms that are equally good has a standard deviation
    over seeds of sqrt(2) times that of one. NaN with one seed, or where all gains are equal.
    """
    spread = _deviation(gains)
    return float(np.mean(gains)) / (math.sqrt(2) * spread) if spread > 0 else math.nan


def search_statistics(found: list[dict[str, Any]]) -> pd.DataFrame:
    """One row a candidate, in the order of `found`; each entry is of a candidate and a seed."""
    names = dict.fromkeys(one["candidate"] for one in found)
    return pd.DataFrame(
        [_summary(name, [one for one in found if one["candidate"] == name]) for name in names]
    )


def _summary(name: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    signals = [run["signal"] for run in runs]
    ratio = float(np.mean([signal["ratio"] for signal in signals]))
    errors = np.array([signal["standard_error"] for signal in signals])
    seconds = float(np.mean([signal["seconds"] for signal in signals]))
    gains = {
        anchor: [final_gain(run["anchors"][anchor]["course"]) for run in runs] for anchor in ANCHORS
    }
    trained = [run["anchors"][anchor] for run in runs for anchor in ANCHORS]
    return {
        "candidate": name,
        "n_seeds": len(runs),
        "signal_to_noise": ratio,
        "signal_to_noise_se": float(np.sqrt((errors**2).sum()) / len(runs)),
        "seconds_an_iteration": seconds,
        "signal_to_noise_per_second": ratio / seconds,
        "oracle_gain": float(np.mean(gains[GOOD])),
        "oracle_sd": _deviation(gains[GOOD]),
        "random_gain": float(np.mean(gains[IDLE])),
        "random_sd": _deviation(gains[IDLE]),
        "merit": figure_of_merit(gains[GOOD]),
        "seconds_a_run": float(np.mean([run["seconds"] for run in trained])),
    }


def _deviation(values: list[float]) -> float:
    """Over seeds; NaN with one."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
