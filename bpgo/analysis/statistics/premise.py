"""Whether a reward is less reliable where the paper says it is, and whether trust follows.

The premise: within a group, the rank order of a reward tells less about the truth the more
ambiguous the prompt is, and a low group mean gives that away. Measured on the base policy's
calibration samples, each from noise of its own; groups are the units. The truth is the oracle; real
images have none, and there the mean of the other rewards, each standardized, stands in for it.
Reliability is `gain`, defined for every group, and beside it `gamma`
(`bpgo.analysis.statistics.reliability`).

What an arm reads is another thing: the group's mean less a prior, in training, where the samples of
a group may share their noise. So during training: does reliability go with that deviation, and with
the weight that comes of it? Ambiguous prompts have both low means and unreliable groups, so each
correlation is also given with ambiguity held fixed. Seeds are the units.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from bpgo.analysis.roles import oracle_of, reward_role
from bpgo.analysis.statistics.bootstrap import Bootstrap, Floats, standardized
from bpgo.analysis.statistics.data import Collected
from bpgo.analysis.statistics.reliability import (
    measures_in,
    rank_correlation,
    rows_gain,
    rows_gamma,
    within_spread,
)
from bpgo.config.settings import Settings

BINS = 5
FIXED = "_fixed"  # ends the names of correlations with ambiguity held fixed


def premise(
    settings: Settings, data: Collected, bootstrap: Bootstrap
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Binned reliability, and its trends.

    Returns:
        Rows (experiment, reward, measure, by, bin): mean reliability with its interval; `by` is
        `ambiguity` or `group_mean`. Then rows (experiment, reward, measure, by): Spearman's
        correlation over groups of reliability with `by`; with `group_mean_fixed` the partial one,
        ambiguity held fixed; and with `overall` the mean reliability itself.
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
            role = reward_role(settings, experiment, reward)
            if truth is None or role == "oracle":
                continue
            reliability = {
                "gain": rows_gain(table, truth) / within_spread(truth),
                "gamma": rows_gamma(table, truth),
            }
            for measure, values in reliability.items():
                labels = {"experiment": experiment, "reward": reward, "role": role}
                found = _trends(values, ambiguity, table.mean(axis=1), bootstrap)
                for rows, kept in zip(found, (binned, trends), strict=True):
                    kept += [{**labels, "measure": measure, **row} for row in rows]
    return pd.DataFrame(binned), pd.DataFrame(trends)


def _trends(
    reliability: Floats, ambiguity: Floats, mean: Floats, bootstrap: Bootstrap
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Binned rows and trends of one reward, over the groups whose reliability is defined."""
    known = np.isfinite(reliability)
    if not known.any():
        return [], []
    values = reliability[known]
    columns = {"ambiguity": ambiguity[known], "group_mean": mean[known]}
    fixed: Floats | None = columns["ambiguity"]
    if not np.isfinite(columns["ambiguity"]).all():  # prompts of unknown ambiguity
        fixed = None
        del columns["ambiguity"]
    counts = {"n_groups": len(values), "n_undefined": int((~known).sum())}
    overall = bootstrap.units(values)
    trends = [{"by": "overall", **counts, **_plain(overall)}]
    binned = []
    for by, column in columns.items():
        trends.append({"by": by, **counts, **_plain(bootstrap.rank_correlation(column, values))})
        binned += [{"by": by, **row} for row in _binned(column, values, bootstrap)]
    if fixed is not None:
        held = bootstrap.rank_correlation(columns["group_mean"], values, fixed)
        trends.append({"by": f"group_mean{FIXED}", **counts, **_plain(held)})
    return binned, trends


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
    """Reliability of groups in training by the weight they were given, and what it goes with.

    Returns:
        Rows (experiment, arm, measure, bin): mean weight and mean reliability. Rows (experiment,
        arm, measure, reads): Spearman's correlation over all groups of a run of reliability with
        what is read: the `weight`, and the `deviation` of the group's mean from the arm's prior;
        `weight_fixed` and `deviation_fixed` are the partial ones, ambiguity held fixed. Means over
        seeds with their intervals; `n_groups` over all seeds.
    """
    groups = data.groups
    if groups.empty:
        return pd.DataFrame(), pd.DataFrame()
    groups = groups.assign(deviation=groups["reward_mean"] - groups["prior"])
    binned: list[dict[str, Any]] = []
    summary: list[dict[str, Any]] = []
    for (experiment, arm), part in groups.groupby(["experiment", "arm"], observed=True):
        if experiment not in settings.experiments:
            continue
        labels = {"experiment": str(experiment), "arm": str(arm)}
        for measure in measures_in(groups):
            own = {**labels, "measure": measure}
            for read in ("weight", "deviation"):
                usable = part[np.isfinite(part[read]) & np.isfinite(part[measure])]
                if usable[read].nunique() < 2:
                    continue
                rows = _correlations(usable, read, measure, bootstrap)
                summary += [{**own, **row} for row in rows]
                if read == "weight":
                    rows = _by_weight(usable, measure, bootstrap)
                    binned += [{**own, **row} for row in rows]
    return pd.DataFrame(binned), pd.DataFrame(summary)


def _correlations(
    groups: pd.DataFrame, read: str, measure: str, bootstrap: Bootstrap
) -> list[dict[str, Any]]:
    """The correlation of `measure` with what is `read`, plain and with ambiguity held fixed."""
    wanted: dict[str, bool] = {read: False}
    if np.isfinite(groups["ambiguity"]).all():
        wanted[f"{read}{FIXED}"] = True
    rows = []
    for name, held in wanted.items():
        found = [
            rank_correlation(run[read], run[measure], run["ambiguity"] if held else None)
            for _, run in groups.groupby("seed")
        ]
        known = np.array([value for value in found if np.isfinite(value)])
        if len(known):
            interval = bootstrap.mean(known[:, None], f"{measure} with {name}").within(-1.0, 1.0)
            counts = {"n_seeds": len(known), "n_groups": len(groups)}
            rows.append({"reads": name, **counts, **_plain(interval)})
    return rows


def _by_weight(groups: pd.DataFrame, measure: str, bootstrap: Bootstrap) -> list[dict[str, Any]]:
    weight = groups["weight"].to_numpy(float)
    groups = groups.assign(bin=assign_bins(weight, bin_edges(weight)))
    per_seed = groups.groupby(["bin", "seed"])[["weight", measure]].mean()
    rows = []
    for index, part in per_seed.groupby(level=0):
        interval = bootstrap.mean(part[measure].to_numpy()[:, None], "trust")
        if measure == "gamma":  # a correlation
            interval = interval.within(-1.0, 1.0)
        rows.append(
            {
                "bin": index,
                "weight": float(part["weight"].mean()),
                "n_seeds": len(part),
                "n_groups": int((groups["bin"] == index).sum()),
                **_plain(interval),
            }
        )
    return rows


def _plain(interval: Any) -> dict[str, float]:
    return {name: float(value) for name, value in interval._asdict().items()}
