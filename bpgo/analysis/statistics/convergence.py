"""Training curves, how soon they rise and how much they swing, and what a run costs.

A training curve is the mean training reward of an iteration's groups. Which prompts an iteration
draws moves it more than training does, so each group's reward is taken relative to the base
policy's mean on the same prompt where the calibration knows every prompt (`adjusted`). Unit: the
standard deviation of the training reward within a prompt under the base policy (base sd).

These curves are drawn, and nothing is measured on them. How soon and how steadily a run rises is
read from its *evaluation curve*: the training reward of its snapshots on fixed evaluation prompts
and noise, as a gain over the base policy on the same samples, with the base policy as its start.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from bpgo.analysis.roles import arms_of
from bpgo.analysis.statistics.bootstrap import Bootstrap, Floats, interquartile_mean
from bpgo.analysis.statistics.data import Collected, Scores
from bpgo.analysis.statistics.differences import comparisons
from bpgo.analysis.statistics.final import base_sd, paired_with_base
from bpgo.analysis.statistics.repeated import RepeatedMeasures
from bpgo.config.settings import BASE_ARM, Settings
from bpgo.errors import UserError

SHARE_OF_GAIN = 0.8  # the threshold: this share of the reference arm's final gain (our choice)
WINDOW_SHARE = 0.15  # running mean over this share of the iterations (our choice)
LIMITS = ("difference_low", "difference_high", "simultaneous_low", "simultaneous_high")
TIMES = ("seconds", "rollout_seconds", "reward_seconds", "update_seconds")
PASSES = ("rollout_passes", "trained_passes", "other_passes")

# measure: (title, unit, whether more is better)
MEASURES = {
    "area": ("Mean gain over training", "base sd", True),
    "final_gain": ("Gain at the end", "base sd", True),
    "steps_to_threshold": ("Iterations to threshold", "iterations", False),
    "oscillation": ("Oscillation", "base sd", False),
    "seconds": ("Time per iteration", "s", False),
}

NO_LESS = ("oscillation", "seconds")  # than zero


def training_curves(settings: Settings, data: Collected) -> pd.DataFrame:
    """Per (experiment, arm, seed, iteration): `gain` of the training reward, `smooth`, `adjusted`.

    Raises:
        UserError: a training reward is not finite.
    """
    groups = data.groups[[*_KEYS, "reward_mean"]].copy()
    if not np.isfinite(groups["reward_mean"]).all():
        row = groups[~np.isfinite(groups["reward_mean"])].iloc[0]
        raise UserError(
            f"groups of {row['experiment']}/{row['arm']}/seed_{row['seed']}: the mean reward of"
            f" prompt {row['prompt_id']} at iteration {row['iteration']} is not finite"
        )
    parts = []
    for experiment, entry in settings.experiments.items():
        chosen = groups[groups["experiment"] == experiment]
        if chosen.empty:
            continue
        calibration = data.calibration[
            (data.calibration["experiment"] == experiment)
            & (data.calibration["reward"] == entry.training_reward)
        ]
        centre, spread, adjusted = _anchor(chosen, calibration)
        part = chosen.assign(gain=(chosen["reward_mean"] - centre) / spread)
        keys = ["arm", "seed", "iteration"]
        curve = part.groupby(keys, observed=True)["gain"].mean().reset_index()
        curve.insert(0, "experiment", experiment)
        curve["smooth"] = np.nan
        for _, index in curve.groupby(["arm", "seed"], observed=True).groups.items():
            curve.loc[index, "smooth"] = running_mean(curve.loc[index, "gain"].to_numpy())
        curve["adjusted"] = adjusted
        parts.append(curve)
    columns = ["experiment", "arm", "seed", "iteration", "gain", "smooth", "adjusted"]
    joined = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)
    return joined.astype({"arm": str, "experiment": str})


_KEYS = ["experiment", "arm", "seed", "iteration", "prompt_id"]


def _anchor(groups: pd.DataFrame, calibration: pd.DataFrame) -> tuple[Any, float, bool]:
    """What to subtract from each group's mean, the unit, and whether it is known by prompt."""
    if calibration.empty:
        first = groups[groups["iteration"] == groups["iteration"].min()]["reward_mean"]
        return float(first.mean()), float(groups["reward_mean"].std() or 1.0), False
    by_prompt = calibration.groupby("prompt_id", observed=True)["score"]
    spread = float(np.sqrt(by_prompt.var(ddof=1).mean())) or 1.0
    means = by_prompt.mean()
    known = groups["prompt_id"].astype(object).map(means.to_dict())
    if known.notna().all():
        return known.astype(float), spread, True
    return float(calibration["score"].mean()), spread, False


def running_mean(values: Floats) -> Floats:
    """Centred running mean of an [n] curve; the window shrinks at the ends."""
    n = len(values)
    half = max(1, round(n * WINDOW_SHARE / 2))
    total = np.concatenate([[0.0], np.cumsum(values)])
    start = np.maximum(np.arange(n) - half, 0)
    stop = np.minimum(np.arange(n) + half + 1, n)
    return np.asarray((total[stop] - total[start]) / (stop - start))


def convergence(settings: Settings, data: Collected) -> pd.DataFrame:
    """One row per (experiment, arm, seed, measure): `value`, and `reached` for the threshold.

    Of a run's evaluation curve, straight between snapshots:

    - area: its mean over training;
    - final_gain: the gain of the final scores, on all evaluation prompts;
    - steps_to_threshold: the first iteration at which it has 80 % of the reference arm's mean final
      gain; the number of iterations where it never has (`reached` False);
    - oscillation: root of the mean square of its third differences, divided by sqrt(20). A course
      that bends evenly has none, and swings that are independent between snapshots have their
      standard deviation (Gasser, Sroka and Jennen-Steinmetz 1986). Needs three snapshots.

    seconds: median time of an iteration, the first left out.
    """
    rows = []
    for experiment, scores in data.scores.items():
        reference = settings.analysis.reference_arm
        courses = _courses(scores, settings.experiments[experiment].training_reward)
        ends = [end for (arm, _), (_, end) in courses.items() if arm == reference]
        threshold = SHARE_OF_GAIN * float(np.mean(ends)) if ends else np.nan
        for (arm, seed), (course, end) in courses.items():
            steps = np.array(scores.iterations, dtype=np.float64)
            measures = {
                "area": float(np.trapezoid(course, steps) / steps[-1]),
                "final_gain": end,
                "oscillation": oscillation(course),
            }
            at = first_reach(steps, course, threshold) if threshold > 0 else np.nan
            if threshold > 0:
                measures["steps_to_threshold"] = at if np.isfinite(at) else float(steps[-1])
            labels = {"experiment": experiment, "arm": arm, "seed": seed}
            rows += [
                {**labels, "measure": name, "value": value, "reached": bool(np.isfinite(at))}
                for name, value in measures.items()
                if np.isfinite(value)
            ]
    columns = ["experiment", "arm", "seed", "measure", "value", "reached"]
    return pd.concat([pd.DataFrame(rows, columns=columns), _seconds(data)], ignore_index=True)


def _courses(scores: Scores, reward: str) -> dict[tuple[str, int], tuple[Floats, float]]:
    """Of each run that has all snapshots its gains [iterations] and its final gain, in base sd."""
    spread = base_sd(scores, reward)
    found: dict[tuple[str, int], tuple[Floats, float]] = {}
    for arm in scores.trained:
        pairs = [paired_with_base(scores, arm, reward, step) for step in scores.iterations]
        known = [pair for pair in pairs if pair is not None]
        final = paired_with_base(scores, arm, reward, scores.final, all_prompts=True)
        if final is None or len(known) < len(pairs) or len(pairs) < 2:
            continue
        for seed in final[0]:
            if not all(seed in pair[0] for pair in known):
                continue
            change = [(pair[1] - pair[2])[pair[0].index(seed)].mean() for pair in known]
            end = (final[1] - final[2])[final[0].index(seed)].mean()
            found[arm, seed] = np.array(change) / spread, float(end) / spread
    return found


def first_reach(steps: Floats, course: Floats, level: float) -> float:
    """Where a curve, straight between its points, first is at `level`; NaN where it never is."""
    at = np.flatnonzero(course >= level)
    if not len(at):
        return float("nan")
    if at[0] == 0:
        return float(steps[0])
    before, after = at[0] - 1, at[0]
    share = (level - course[before]) / (course[after] - course[before])
    return float(steps[before] + share * (steps[after] - steps[before]))


def oscillation(course: Floats) -> float:
    """See `convergence`; NaN for less than four points."""
    if len(course) < 4:
        return float("nan")
    return float(np.sqrt((np.diff(course, 3) ** 2).mean() / 20))


def _seconds(data: Collected) -> pd.DataFrame:
    costs = cost(data)
    frame = costs[["experiment", "arm", "seed", "seconds"]].rename(columns={"seconds": "value"})
    return frame.assign(measure="seconds", reached=True)


def cost(data: Collected) -> pd.DataFrame:
    """Per run: iterations, median seconds of an iteration and its parts (first left out), passes.

    Passes are of one sample and of the whole run: of the rollout, with a gradient, of others.
    """
    metrics = data.metrics
    columns = ["experiment", "arm", "seed", "iterations", *TIMES, "total_seconds", *PASSES]
    if metrics.empty:
        return pd.DataFrame(columns=columns)
    keys = ["experiment", "arm", "seed"]
    first = metrics.groupby(keys, observed=True)["iteration"].transform("min")
    several = metrics.groupby(keys, observed=True)["iteration"].transform("size") > 1
    steady = metrics[(metrics["iteration"] > first) | ~several]
    known = [name for name in TIMES if name in metrics]
    result = steady.groupby(keys, observed=True)[known].median().reset_index()
    totals = metrics.groupby(keys, observed=True)["seconds"].agg(["size", "sum"]).reset_index()
    result["iterations"], result["total_seconds"] = totals["size"], totals["sum"]
    counted = [name for name in PASSES if name in metrics]
    result[counted] = metrics.groupby(keys, observed=True)[counted].sum(min_count=1).to_numpy()
    return result.reindex(columns=columns).astype({"experiment": str, "arm": str})


def summarize(settings: Settings, runs: pd.DataFrame, bootstrap: Bootstrap) -> pd.DataFrame:
    """Per (experiment, arm, measure): mean over seeds, and the reference arm compared.

    `difference` is arm minus reference over shared seeds, by repeated measures; for `seconds` it is
    the ratio, by their logarithms. `difference_low` and `_high` hold for one difference,
    `simultaneous_low` and `_high` for all arms of an experiment at once. No limit lies where its
    number cannot: below zero, or beyond the last iteration.
    """
    rows = []
    reference = settings.analysis.reference_arm
    for (experiment, measure), part in runs.groupby(["experiment", "measure"]):
        table = part.pivot(index="seed", columns="arm", values="value")
        arms = [arm for arm in arms_of(settings, str(experiment)) if arm in table]
        arms = [arm for arm in arms if arm != BASE_ARM]
        measures = _repeated(settings, table[arms], str(measure))
        for arm in arms:
            own = table[arm].dropna()
            level = bootstrap.mean(own.to_numpy()[:, None], f"{measure} of {arm}")
            level = level.within(*_bounds(settings, str(measure)))
            row = {
                "experiment": experiment,
                "arm": arm,
                "measure": measure,
                "n_seeds": len(own),
                "mean": float(level.mean),
                "low": float(level.low),
                "high": float(level.high),
                "iqm": interquartile_mean(own),
                "reached": int(part[part["arm"] == arm]["reached"].sum()),
                **dict.fromkeys(("difference", *LIMITS, "df"), np.nan),
            }
            if arm != reference and reference in arms and measures.shared(arm, reference):
                gap = measures.contrast(arm, reference)
                number = comparisons(settings, str(experiment), arm, reference)
                alone, together = (
                    gap.interval(settings.analysis.confidence, k) for k in (1, number)
                )
                values = [*alone, *together[1:]]
                if measure == "steps_to_threshold":
                    last = settings.training.iterations
                    values = [np.clip(value, -last, last) for value in values]
                if measure == "seconds":
                    values = [np.exp(value) for value in values]
                names = ("difference", *LIMITS)
                row |= dict(zip(names, map(float, values), strict=True)) | {"df": gap.df}
            rows.append(row)
    return pd.DataFrame(rows)


def _bounds(settings: Settings, measure: str) -> tuple[float, float]:
    """Where a level of a measure can lie."""
    if measure == "steps_to_threshold":
        return 0.0, float(settings.training.iterations)
    return (0.0 if measure in NO_LESS else -np.inf), np.inf


def _repeated(settings: Settings, table: pd.DataFrame, measure: str) -> RepeatedMeasures:
    """A [seed, arm] table of one number a run; times by their logarithms."""
    runs = {}
    for arm in table:
        known = table[arm].dropna()
        values = known.to_numpy(float)
        values = np.log(values) if measure == "seconds" else values
        runs[str(arm)] = {int(s): v for s, v in zip(known.index, values[:, None], strict=True)}
    return RepeatedMeasures(runs, None, settings.analysis.own_variance, measure)


def mean_training_curve(training: pd.DataFrame, bootstrap: Bootstrap) -> pd.DataFrame:
    """Per (experiment, arm, iteration): mean over seeds of `gain` and `smooth`, with intervals."""
    rows = []
    for (experiment, arm), part in training.groupby(["experiment", "arm"]):
        smooth = part.pivot(index="seed", columns="iteration", values="smooth").dropna(axis=1)
        raw = part.pivot(index="seed", columns="iteration", values="gain")[smooth.columns]
        if smooth.empty:
            continue
        level = bootstrap.mean(smooth.to_numpy().T[:, :, None], f"training curve of {arm}")
        rows.append(
            pd.DataFrame(
                {
                    "experiment": experiment,
                    "arm": arm,
                    "iteration": smooth.columns,
                    "n_seeds": len(smooth),
                    "gain": raw.to_numpy().mean(axis=0),
                    "smooth": level.mean,
                    "low": level.low,
                    "high": level.high,
                    "adjusted": bool(part["adjusted"].iloc[0]),
                }
            )
        )
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame()
