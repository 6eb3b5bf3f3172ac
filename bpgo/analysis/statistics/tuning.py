"""Equal tuning: what each candidate gained, and which one is chosen for each arm."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pandas as pd

from bpgo.analysis.statistics.data import Collected
from bpgo.config.settings import BASE_ARM, Settings
from bpgo.config.tuning import searched, values_of

ROWS = ["arm", "candidate", "name", "seed", "gain", "status", "settings"]


def search_rows(settings: Settings, collected: Collected) -> pd.DataFrame:
    """One row a candidate and seed: its gain, or NaN and in `status` why there is none.

    The gain is the mean of the main metric over evaluation prompts, less the base policy's with the
    same noise. `candidate` 0 is the arm as it stands. `settings` is JSON, by setting.
    """
    tune, metric = searched(settings), settings.analysis.main_metric
    entry = settings.experiments[tune.experiment]
    scores = collected.scores.get(tune.experiment)
    missing = {
        (lost["arm"], lost["seed"]): str(lost["reason"])
        for lost in collected.runs.get("missing", [])
        if lost["experiment"] == tune.experiment
    }
    rows = []
    for arm in entry.arms:
        for number, name in enumerate(tune.names(arm)):
            values = json.dumps(values_of(settings, arm, name))
            for seed in entry.seeds:
                known = scores is not None and all(
                    seed in scores.seeds_of(each, metric) for each in (name, BASE_ARM)
                )
                gain, status = math.nan, missing.get((name, seed), "no scores")
                if known and scores is not None:
                    after, before = (scores.values(a, metric, [seed]) for a in (name, BASE_ARM))
                    gain, status = float(after.mean() - before.mean()), ""
                rows.append((arm, number, name, seed, gain, status, values))
    return pd.DataFrame(rows, columns=ROWS)


def tuning_summary(rows: pd.DataFrame) -> pd.DataFrame:
    """One row an arm: `chosen`, the candidate with the largest mean gain over seeds.

    A candidate that lacks a seed is never chosen. Of equal ones the first is, and `tied` counts the
    others. Where all of them lack, the arm stays as it stands and its gain is NaN.
    """
    found = []
    for arm, mine in rows.groupby("arm", sort=False):
        means = mine.groupby("candidate")["gain"].agg(lambda gain: gain.mean(skipna=False))
        gains = means.to_numpy(float)
        known = np.isfinite(gains)
        best = int(np.argmax(np.where(known, gains, -np.inf)))
        chosen = mine[mine["candidate"] == means.index[best]]
        rising = np.sort(gains[known])
        found.append(
            {
                "arm": arm,
                "chosen": int(chosen["candidate"].iloc[0]) if known.any() else 0,
                "name": str(chosen["name"].iloc[0]) if known.any() else str(arm),
                "gain": float(gains[best]),
                "sd": float(chosen["gain"].std(ddof=1)),
                "as_it_stands": float(gains[0]),
                "second": float(rising[-2]) if len(rising) > 1 else math.nan,
                "tied": int((gains[known] == gains[best]).sum()) - 1 if known.any() else 0,
                "failed": int((~known).sum()),
                "settings": str((chosen if known.any() else mine)["settings"].iloc[0]),
            }
        )
    return pd.DataFrame(found)


def chosen_names(summary: pd.DataFrame) -> dict[str, str]:
    """By arm the name of its chosen candidate; arms of which none could be judged are left out."""
    judged: Any = summary[np.isfinite(summary["gain"])]
    return dict(zip(judged["arm"], judged["name"], strict=True))
