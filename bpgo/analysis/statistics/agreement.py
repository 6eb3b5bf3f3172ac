"""Does a second run of a configuration, with other seeds or on another machine, say the same?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from bpgo.analysis.statistics.bootstrap import Floats
from bpgo.analysis.statistics.critical import BETTER, WORSE
from bpgo.config.settings import BASE_ARM, Settings
from bpgo.errors import UserError

ALL = "all"
KEYS = ["experiment", "arm", "reference", "reward", "role"]
KEPT = ["difference_sd", "low_sd", "high_sd", "df", "n_seeds", "verdict"]


def agreement(
    settings: Settings, first: pd.DataFrame, second: pd.DataFrame, names: tuple[str, str]
) -> pd.DataFrame:
    """One row per difference to the reference arm that both runs have, in base sd.

    Args:
        settings: of the first run.
        first: the first run's `differences`; `second` the second's.
        second: see `first`.
        names: of the runs, for messages.

    Returns:
        Columns of `KEPT` with `_first` and `_second`; `same_verdict`; `opposed`: one is better, the
        other worse; `second_outside`: the second estimate is outside the first's interval of one
        difference, `first_outside` the reverse; `expected`: how probable that is by chance;
        `pooled`: the arm shares its variance with others.

    Raises:
        UserError: no difference in common, or a run without intervals.
    """
    reference = settings.analysis.reference_arm
    parts = []
    for name, frame in zip(names, (first, second), strict=True):
        chosen = frame[(frame["reference"] == reference) & (frame["arm"] != BASE_ARM)]
        if len(chosen) and not np.isfinite(chosen["low_sd"]).any():
            raise UserError(
                f"{name}: has one seed of each arm, so no intervals; agreement needs two or more"
            )
        parts.append(chosen[[*KEYS, *KEPT]])
    both = parts[0].merge(parts[1], on=KEYS, suffixes=("_first", "_second"))
    if both.empty:
        raise UserError(
            f"{names[0]} and {names[1]} have no difference to '{reference}' in common: no arm was"
            " scored in both beside it"
        )
    verdicts = both[["verdict_first", "verdict_second"]]
    both["same_verdict"] = verdicts["verdict_first"] == verdicts["verdict_second"]
    both["opposed"] = [set(pair) == {BETTER, WORSE} for pair in verdicts.to_numpy()]
    for one, other in (("first", "second"), ("second", "first")):
        estimate = both[f"difference_sd_{other}"]
        both[f"{other}_outside"] = (estimate < both[f"low_sd_{one}"]) | (
            estimate > both[f"high_sd_{one}"]
        )
    both["pooled"] = ~both["arm"].isin(settings.apart)
    both["expected"] = _expected(both, settings.analysis.confidence)
    return both


def _expected(both: pd.DataFrame, confidence: float) -> Floats:
    """Probability that one run's estimate is outside the other's interval if both are right."""
    se, reach = [], []
    for name in ("first", "second"):
        low, high = (both[f"{end}_sd_{name}"].to_numpy(float) for end in ("low", "high"))
        half = (high - low) / 2
        reach.append(half)
        se.append(half / stats.t.ppf((1 + confidence) / 2, both[f"df_{name}"].to_numpy(float)))
    df = both[["df_first", "df_second"]].min(axis=1).to_numpy(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        chances = [2 * stats.t.sf(half / np.hypot(*se), df) for half in reach]
    return np.asarray(np.mean(chances, axis=0))


def summarize(rows: pd.DataFrame) -> pd.DataFrame:
    """Per experiment and reward, and over all: how far the runs agree.

    `correlation` is Pearson's of the two runs' estimates of arms that share a variance (NaN for
    fewer than three): an arm on random rewards lies so far off that it alone would make it 1;
    `outside` the share of estimates outside the other run's interval, of both directions;
    `expected` that by chance.
    """
    groups: list[tuple[tuple[str, str], pd.DataFrame]] = [((ALL, ALL), rows)]
    for (experiment, reward), part in rows.groupby(["experiment", "reward"], sort=False):
        groups.append(((str(experiment), str(reward)), part))
    return pd.DataFrame([_summary(*names, part) for names, part in groups])


def _summary(experiment: str, reward: str, part: pd.DataFrame) -> dict[str, Any]:
    pooled = part[part["pooled"]]
    first, second = (pooled[f"difference_sd_{k}"].to_numpy(float) for k in ("first", "second"))
    known = len(pooled) > 2 and np.ptp(first) > 0 and np.ptp(second) > 0
    outside = part[["first_outside", "second_outside"]].to_numpy(float).mean()
    return {
        "experiment": experiment,
        "reward": reward,
        "differences": len(part),
        "correlation": float(np.corrcoef(first, second)[0, 1]) if known else np.nan,
        "same_verdict": int(part["same_verdict"].sum()),
        "opposed": int(part["opposed"].sum()),
        "outside": float(outside),
        "expected": float(part["expected"].mean()),
    }
