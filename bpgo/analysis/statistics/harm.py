"""What training broke while its reward rose: the worst prompts, agreement of judges, spread, drift.

Every measure is a number of each run, or of each prompt of a run, so levels and differences have
the intervals of all others: means by the bootstrap, differences by repeated measures. Changes are
against the base policy's sample of the same seed, prompt and noise, in base sd (within a prompt).

Of final scores:

- worst_tenth: mean change of the main metric on the tenth of the prompts where it is lowest.
  Choosing prompts by the numbers that are then averaged finds bad luck too: without any effect it
  lies below zero, for every arm alike. worst_tenth_crossed: on the tenth that the arm's *other*
  seeds choose, which is about zero without an effect.
- better_by_all, worse_but_trained: share of prompts where no judge says worse and one says better;
  where the training reward does not fall, no other judge says better and one says worse.

At equal training (the main metric's change where a run's course first reaches a level, straight
between snapshots, on the curve's prompts): gold_at_reward, at 80 % of the reference arm's mean
final gain of the training reward; gold_at_divergence, at 80 % of its mean final sqrt(KL). Runs that
never reach the level are left out and counted. gold_at_end is the final change.

Of what `python -m bpgo harm` measured: divergence, sqrt(KL) of the policy's path from the base
policy's (Gao et al. 2023 take the root as the axis of over-optimization); vendi and distance within
a prompt; kid to the base policy's samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from bpgo.analysis.roles import main_metric
from bpgo.analysis.statistics.bootstrap import Bootstrap, Floats
from bpgo.analysis.statistics.convergence import SHARE_OF_GAIN, first_reach
from bpgo.analysis.statistics.courses import Course, courses_of
from bpgo.analysis.statistics.data import Scores
from bpgo.analysis.statistics.differences import comparisons
from bpgo.analysis.statistics.final import base_sd, named
from bpgo.analysis.statistics.repeated import RepeatedMeasures
from bpgo.config.settings import BASE_ARM, Settings

Row = dict[str, Any]
Runs = dict[str, dict[int, Floats]]  # arm -> seed -> [P]
TAIL = 0.1


class Measure(NamedTuple):
    """How a measure is shown; `better`: 1 more is better, -1 less is, 0 neither.

    A level cannot lie outside `bounds`, nor does its interval reach beyond.
    """

    title: str
    better: int
    digits: int = 2
    scale: float = 1.0
    bounds: tuple[float, float] = (-np.inf, np.inf)


NO_LESS, SHARE = (0.0, np.inf), (0.0, 1.0)
MEASURES = {
    "divergence": Measure("√KL to base", 0, 3, bounds=NO_LESS),
    "worst_tenth": Measure("Worst tenth", 1),
    "worst_tenth_crossed": Measure("Worst tenth, other seeds", 1),
    "better_by_all": Measure("Better by all judges", 1, bounds=SHARE),
    "worse_but_trained": Measure("Worse by all but trained", -1, bounds=SHARE),
    "vendi": Measure("Vendi score", 1, bounds=(1.0, np.inf)),
    "distance": Measure("Pairwise distance", 1, 3, bounds=NO_LESS),
    "kid": Measure("KID × 1000", -1, 2, 1000.0),
    "gold_at_end": Measure("at equal iterations", 1),
    "gold_at_reward": Measure("at equal training reward", 1),
    "gold_at_divergence": Measure("at equal divergence", 1),
}
SPREAD = ("vendi", "distance")  # the base policy has them too
LIMITS = ("difference", "low", "high", "simultaneous_low", "simultaneous_high")


@dataclass(frozen=True)
class Found:
    """One measure: its numbers by run, and how many runs it could be taken of."""

    runs: Runs
    of: dict[str, int]


def harm(
    settings: Settings, scores: Scores, measured: pd.DataFrame, bootstrap: Bootstrap
) -> pd.DataFrame:
    """One row per (arm, measure) that the stored scores allow.

    `mean`, `low`, `high` of the level; `n_seeds` of the `n_runs` that the arm has; `to_reference_*`
    the difference to the reference arm, `to_base_*` to the base policy, where it has the measure.

    Args:
        settings: the configuration.
        scores: of one experiment.
        measured: its rows of harm.parquet; may be empty.
        bootstrap: of the levels.
    """
    found = _of_scores(settings, scores)
    found |= _at_equal_training(settings, scores, measured)
    found |= _of_measured(measured)
    rows: list[Row] = []
    for name in MEASURES:
        if name in found:
            rows += _rows(settings, scores.experiment, name, found[name], bootstrap)
    return pd.DataFrame(rows)


def _rows(
    settings: Settings, experiment: str, name: str, found: Found, bootstrap: Bootstrap
) -> list[Row]:
    runs = {arm: own for arm, own in found.runs.items() if own}
    if not runs:
        return []
    what = f"{name} of {experiment}"
    base = BASE_ARM if BASE_ARM in runs else None
    measures = RepeatedMeasures(runs, base, settings.apart, what)
    levels = bootstrap.means([np.stack(list(own.values())) for own in runs.values()], what)
    rows = []
    for (arm, own), level in zip(runs.items(), levels, strict=True):
        row: Row = {"experiment": experiment, "arm": arm, "measure": name}
        row |= {"n_seeds": len(own), "n_runs": found.of.get(arm, len(own))}
        row |= named("", "mean", level.within(*MEASURES[name].bounds))
        for label, other in (
            ("reference", settings.analysis.reference_arm),
            ("base", BASE_ARM),
        ):
            values = dict.fromkeys(LIMITS, np.nan)
            if other in runs and arm not in (other, BASE_ARM) and measures.shared(arm, other):
                gap = measures.contrast(arm, other)
                number = comparisons(settings, experiment, arm, other)
                for prefix, count in (("", 1), ("simultaneous_", number)):
                    interval = gap.interval(settings.analysis.confidence, count)
                    values |= named(prefix, "difference", interval)
            row |= {f"to_{label}_{key}": value for key, value in values.items()}
        rows.append(row)
    return rows


def _of_scores(settings: Settings, scores: Scores) -> dict[str, Found]:
    """What the final scores alone tell."""
    metric = main_metric(settings, scores.experiment)
    rewards = [
        name
        for name in settings.rewards_of(scores.experiment)
        if scores.has(BASE_ARM, name) and name in scores.rewards
    ]
    found: dict[str, Runs] = {}
    for arm in scores.arms:
        if arm == BASE_ARM:
            continue
        seeds = [
            seed
            for seed in scores.seeds_of(BASE_ARM, metric)
            if rewards and all(seed in scores.seeds_of(arm, name) for name in rewards)
        ]
        if not seeds or metric not in rewards:
            continue
        changes = {
            name: (scores.values(arm, name, seeds) - scores.values(BASE_ARM, name, seeds)).mean(
                axis=2
            )
            for name in rewards
        }
        gold = changes[metric] / base_sd(scores, metric)
        trained = settings.experiments[scores.experiment].training_reward
        own = {"gold_at_end": gold, "worst_tenth": worst_tenth(gold)[:, None]}
        if len(seeds) > 1:
            own["worst_tenth_crossed"] = worst_tenth_crossed(gold)[:, None]
        if len(rewards) > 1 and trained in rewards:
            signs = {name: rounded_sign(change) for name, change in changes.items()}
            own |= agreement(signs, trained)
        for name, table in own.items():
            found.setdefault(name, {})[arm] = dict(zip(seeds, table, strict=True))
    return {name: Found(runs, {}) for name, runs in found.items()}


def worst_tenth(change: Floats) -> Floats:
    """[S] mean of the lowest tenth (rounded up) of [S, P] changes."""
    size = max(1, int(np.ceil(TAIL * change.shape[1])))
    return np.asarray(np.sort(change, axis=1)[:, :size].mean(axis=1))


def worst_tenth_crossed(change: Floats) -> Floats:
    """[S] mean change on the tenth of prompts that is lowest in the mean of the other seeds."""
    size = max(1, int(np.ceil(TAIL * change.shape[1])))
    total = change.sum(axis=0)
    means = []
    for own in change:
        chosen = np.argsort(total - own, kind="stable")[:size]
        means.append(own[chosen].mean())
    return np.array(means)


def rounded_sign(change: Floats) -> Floats:
    """-1, 0 or 1; 0 for what may be the rounding of a mean of scores stored in 32 bits."""
    size = np.abs(change).max(initial=0)
    return np.asarray(np.where(np.abs(change) > 1e-6 * size, np.sign(change), 0.0))


def agreement(signs: dict[str, Floats], trained: str) -> dict[str, Floats]:
    """Of each prompt 1 or 0, [S, P]: better by all judges, worse by all but the trained one."""
    every = np.stack(list(signs.values()))
    others = np.stack([sign for name, sign in signs.items() if name != trained])
    better = (every >= 0).all(axis=0) & (every > 0).any(axis=0)
    worse = (others <= 0).all(axis=0) & (others < 0).any(axis=0) & (signs[trained] >= 0)
    return {"better_by_all": better.astype(float), "worse_but_trained": worse.astype(float)}


def _at_equal_training(
    settings: Settings, scores: Scores, measured: pd.DataFrame
) -> dict[str, Found]:
    """The main metric where each run's course reaches a level; nothing where there is no level."""
    courses = courses_of(settings, scores, measured)
    reference = settings.analysis.reference_arm
    found = {}
    for name, axis in (("gold_at_reward", "proxy"), ("gold_at_divergence", "divergence")):
        known = {run: course for run, course in courses.items() if course.has(axis)}
        ends = [course.axis(axis)[-1] for (arm, _), course in known.items() if arm == reference]
        level = SHARE_OF_GAIN * float(np.mean(ends)) if ends else 0.0
        if level <= 0:
            continue
        runs: Runs = {}
        counted: dict[str, int] = {}
        for (arm, seed), course in known.items():
            counted[arm] = counted.get(arm, 0) + 1
            at = _at(course, axis, level)
            if at is not None:
                runs.setdefault(arm, {})[seed] = at
        found[name] = Found(runs, counted)
    return found


def _at(course: Course, axis: str, level: float) -> Floats | None:
    """[P] change of the main metric where a course first is at `level`; None where it never is."""
    places = np.arange(len(course.iterations), dtype=np.float64)
    place = first_reach(places, course.axis(axis), level)
    if not np.isfinite(place):
        return None
    before = int(np.floor(place))
    share = place - before
    if share == 0:
        return course.gold[before]
    return np.asarray((1 - share) * course.gold[before] + share * course.gold[before + 1])


def _of_measured(measured: pd.DataFrame) -> dict[str, Found]:
    """Divergence, spread and drift of the last policies."""
    found = {}
    for name in ("divergence", *SPREAD, "kid"):
        stored = "kl" if name == "divergence" else name
        part = measured[measured["measure"] == stored] if len(measured) else measured
        if part.empty:
            continue
        runs: Runs = {}
        for _, rows in part.groupby(["arm", "seed"], observed=True):
            arm, seed = str(rows["arm"].iloc[0]), int(rows["seed"].iloc[0])
            last = rows[rows["iteration"] == rows["iteration"].max()].sort_values("prompt_id")
            values = last["value"].to_numpy(np.float64)
            if name == "divergence":
                values = np.sqrt(values.mean(keepdims=True))
            runs.setdefault(arm, {})[seed] = values
        found[name] = Found(runs, {})
    return found
