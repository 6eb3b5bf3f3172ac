"""Whether a reward is less reliable where the paper says it is, and whether trust follows.

The premise: within a group, the rank order of a reward tells less about the truth the more
ambiguous the prompt is, and a low group mean gives that away. Measured on the base policy's
calibration samples; groups are the units. The truth is the oracle; real images have none, and there
the mean of the other rewards, each standardized, stands in for it.

Trust calibration: RAS gives each group a weight during training. Does a higher weight go with a
higher rank correlation of reward and oracle in that group? Seeds are the units.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from bpgo.analysis.roles import oracle_of, reward_role
from bpgo.analysis.statistics.bootstrap import (
    Bootstrap,
    Floats,
    rows_rank_correlation,
    standardized,
)
from bpgo.analysis.statistics.data import Collected
from bpgo.config.settings import Settings

BINS = 5


def premise(
    settings: Settings, data: Collected, bootstrap: Bootstrap
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Binned rank correlations, and their trends.

    Returns:
        Rows (experiment, reward, by, bin): mean within-group rank correlation with its interval;
        `by` is `ambiguity` or `group_mean`. Then rows (experiment, reward, by): Spearman's
        correlation over groups of the within-group rank correlation with `by`, and with
        `by` = `overall` the mean within-group rank correlation itself.
    """
    binned: list[dict[str, Any]] = []
    trends: list[dict[str, Any]] = []
    for experiment in settings.experiments:
        oracle = oracle_of(settings, experiment)
        samples = data.calibration[data.calibration["experiment"] == experiment]
        if samples.empty:
            continue
        ambiguity, tables = _group_tables(samples)
        for reward, table in tables.items():
            truth = _truth(tables, reward, oracle, settings)
            if truth is None or reward_role(settings, experiment, reward) == "oracle":
                continue
            agreement = rows_rank_correlation(table, truth)
            known = np.isfinite(agreement)
            if not known.any():
                continue
            labels = {
                "experiment": experiment,
                "reward": reward,
                "role": reward_role(settings, experiment, reward),
                "n_undefined": int((~known).sum()),
            }
            values = agreement[known]
            columns = {"ambiguity": ambiguity[known], "group_mean": table.mean(axis=1)[known]}
            if not np.isfinite(columns["ambiguity"]).all():  # prompts of unknown ambiguity
                del columns["ambiguity"]
            overall = bootstrap.units(values)
            trends.append({**labels, "by": "overall", "n_groups": len(values), **_plain(overall)})
            for by, column in columns.items():
                trend = bootstrap.rank_correlation(column, values)
                trends.append({**labels, "by": by, "n_groups": len(values), **_plain(trend)})
                binned += [
                    {**labels, "by": by, **row} for row in _binned(column, values, bootstrap)
                ]
    return pd.DataFrame(binned), pd.DataFrame(trends)


def _truth(
    tables: dict[str, Floats], reward: str, oracle: str | None, settings: Settings
) -> Floats | None:
    """What a reward is held against `[N, G]`; None where there is nothing."""
    if oracle is not None:
        return tables.get(oracle)
    own = set(settings.models_of([reward]))  # a sum is no judge of its parts
    others = [
        standardized(table)
        for name, table in tables.items()
        if not own & set(settings.models_of([name]))
    ]
    return np.mean(others, axis=0) if others else None


def _group_tables(samples: pd.DataFrame) -> tuple[Floats, dict[str, Floats]]:
    """Ambiguity [N] and, per reward, scores [N, G] of the complete groups."""
    wide = samples.pivot_table(
        index=["prompt_id", "sample"], columns="reward", values="score", observed=True
    )
    wide = wide.dropna()
    sizes = wide.groupby(level=0, observed=True).size()
    size = int(sizes.max())
    complete = sizes[sizes == size].index
    wide = wide[wide.index.get_level_values(0).isin(complete)].sort_index()
    by_prompt = samples.groupby("prompt_id", observed=True)["ambiguity"].first()
    prompts = list(wide.index.get_level_values(0)[::size])
    ambiguity = by_prompt.loc[prompts].to_numpy(float)
    tables = {str(name): wide[name].to_numpy(float).reshape(-1, size) for name in wide.columns}
    return ambiguity, tables


def bin_edges(values: Floats, bins: int = BINS) -> Floats:
    """Edges of at most `bins` bins that hold about equally many values."""
    return np.unique(np.quantile(values, np.linspace(0, 1, bins + 1)))


def assign_bins(values: Floats, edges: Floats) -> np.ndarray[Any, np.dtype[np.intp]]:
    """Index of each value's bin; the last bin includes its upper edge."""
    return np.clip(np.searchsorted(edges, values, side="right") - 1, 0, max(len(edges) - 2, 0))


def _binned(column: Floats, values: Floats, bootstrap: Bootstrap) -> list[dict[str, Any]]:
    edges = bin_edges(column)
    where = assign_bins(column, edges)
    rows = []
    for index in np.unique(where):
        inside = where == index
        interval = bootstrap.units(values[inside])
        rows.append(
            {
                "bin": int(index),
                "centre": float(column[inside].mean()),
                "n_groups": int(inside.sum()),
                **_plain(interval),
            }
        )
    return rows


def trust(
    settings: Settings, data: Collected, bootstrap: Bootstrap
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rank correlation inside a group by its RAS weight, binned, and their correlation.

    Returns:
        Rows (experiment, arm, bin): mean weight and mean within-group rank correlation; and rows
        (experiment, arm): Spearman's correlation of weight and rank correlation over all groups of
        a run. Means over seeds with their intervals; `n_groups` over all seeds.
    """
    binned: list[dict[str, Any]] = []
    summary: list[dict[str, Any]] = []
    groups = data.groups
    if groups.empty:
        return pd.DataFrame(), pd.DataFrame()
    usable = groups[np.isfinite(groups["weight"]) & np.isfinite(groups["rank_correlation"])]
    for (experiment, arm), part in usable.groupby(["experiment", "arm"], observed=True):
        if experiment not in settings.experiments or part["weight"].nunique() < 2:
            continue
        labels = {"experiment": str(experiment), "arm": str(arm)}
        edges = bin_edges(part["weight"].to_numpy(float))
        part = part.assign(bin=assign_bins(part["weight"].to_numpy(float), edges))
        correlations = [
            float(rows_rank_correlation(run[["weight"]].T, run[["rank_correlation"]].T)[0])
            for _, run in part.groupby("seed")
        ]
        found = np.array([value for value in correlations if np.isfinite(value)])
        if len(found):
            interval = bootstrap.mean(found[:, None], f"trust of {arm}")
            counts = {"n_seeds": len(found), "n_groups": len(part)}
            summary.append({**labels, **counts, **_plain(interval)})
        per_seed = part.groupby(["bin", "seed"])[["weight", "rank_correlation"]].mean()
        for index, rows in per_seed.groupby(level=0):
            interval = bootstrap.mean(rows["rank_correlation"].to_numpy()[:, None], "trust")
            binned.append(
                {
                    **labels,
                    "bin": index,
                    "weight": float(rows["weight"].mean()),
                    "n_seeds": len(rows),
                    "n_groups": int((part["bin"] == index).sum()),
                    **_plain(interval),
                }
            )
    return pd.DataFrame(binned), pd.DataFrame(summary)


def _plain(interval: Any) -> dict[str, float]:
    return {name: float(value) for name, value in interval._asdict().items()}
