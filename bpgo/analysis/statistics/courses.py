"""The courses of runs: proxy (training reward) and gold (main metric) along their divergence.

A course has a point for each snapshot, the base policy first: gains over the base policy on the
curve's prompts in base sd, and the divergence where it was measured.

The turning point of an arm is where its gold is highest, in the mean over seeds, if it falls from
there to the end while the proxy rises. A highest point is always followed by a fall, also of mere
noise, so the fall is measured on each seed from where the *other* seeds' mean is highest: without a
turning point that is about zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bpgo.analysis.roles import main_metric
from bpgo.analysis.statistics.bootstrap import Bootstrap, Floats
from bpgo.analysis.statistics.data import Scores
from bpgo.analysis.statistics.final import base_sd, named, paired_with_base
from bpgo.config.settings import Settings

Row = dict[str, Any]


@dataclass(frozen=True)
class Course:
    """One run: `iterations` [I], `proxy` [I], `gold` [I, P], `divergence` [I] or None, sqrt(KL)."""

    iterations: list[int]
    proxy: Floats
    gold: Floats
    divergence: Floats | None = None

    def has(self, name: str) -> bool:
        """Whether the axis `proxy` or `divergence` is known."""
        return name == "proxy" or self.divergence is not None

    def axis(self, name: str) -> Floats:
        """The axis `proxy` or `divergence` [I]."""
        if name == "proxy":
            return self.proxy
        assert self.divergence is not None
        return self.divergence


def courses_of(
    settings: Settings, scores: Scores, measured: pd.DataFrame
) -> dict[tuple[str, int], Course]:
    """Of each run (arm, seed) that has every snapshot its course, in the order of the arms.

    Args:
        settings: the configuration.
        scores: of one experiment.
        measured: its rows of harm.parquet; may be empty.
    """
    trained = settings.experiments[scores.experiment].training_reward
    metric = main_metric(settings, scores.experiment)
    found: dict[tuple[str, int], Course] = {}
    divergences = _divergences(measured)
    for arm in scores.trained:
        proxy, gold = (_gains(scores, arm, reward) for reward in (trained, metric))
        for seed in proxy:
            if seed not in gold:
                continue
            known = divergences.get((arm, seed), {})
            path = None
            if all(step in known for step in scores.iterations if step > 0):
                path = np.array([known.get(step, 0.0) for step in scores.iterations])
            course = Course(scores.iterations, proxy[seed].mean(axis=1), gold[seed], path)
            found[arm, seed] = course
    return found


def _divergences(measured: pd.DataFrame) -> dict[tuple[str, int], dict[int, float]]:
    """sqrt(KL) by (arm, seed) and iteration; KL is the mean over prompts."""
    found: dict[tuple[str, int], dict[int, float]] = {}
    part = measured[measured["measure"] == "kl"] if len(measured) else measured
    if part.empty:
        return found
    means = part.groupby(["arm", "seed", "iteration"], observed=True)["value"].mean()
    keys = means.reset_index()
    columns = (keys[name].tolist() for name in ("arm", "seed", "iteration", "value"))
    for arm, seed, iteration, value in zip(*columns, strict=True):
        found.setdefault((str(arm), int(seed)), {})[int(iteration)] = float(value) ** 0.5
    return found


def _gains(scores: Scores, arm: str, reward: str) -> dict[int, Floats]:
    """[I, P] paired gains over the base policy, in base sd, of each seed with all snapshots."""
    pairs = [paired_with_base(scores, arm, reward, step) for step in scores.iterations]
    known = [pair for pair in pairs if pair is not None]
    if len(known) < len(pairs) or len(pairs) < 2:
        return {}
    spread = base_sd(scores, reward)
    seeds = [seed for seed in known[0][0] if all(seed in pair[0] for pair in known)]
    return {
        seed: np.stack(
            [
                (after - before)[own.index(seed)].mean(axis=1) / spread
                for own, after, before in known
            ]
        )
        for seed in seeds
    }


def mean_courses(
    settings: Settings, scores: Scores, measured: pd.DataFrame, bootstrap: Bootstrap
) -> pd.DataFrame:
    """Per (arm, iteration): means over seeds of `divergence` (NaN: unknown), `proxy`, `gold`.

    The gains have intervals, `proxy_low` and so on.
    """
    rows: list[Row] = []
    by_arm = _by_arm(courses_of(settings, scores, measured))
    for arm, courses in by_arm.items():
        paths = [course.divergence for course in courses if course.divergence is not None]
        path = np.mean(paths, axis=0) if len(paths) == len(courses) else None
        proxy = np.stack([course.proxy for course in courses])
        gold = np.stack([course.gold for course in courses])
        for place, iteration in enumerate(scores.iterations):
            row: Row = {"experiment": scores.experiment, "arm": arm, "iteration": iteration}
            row |= {"n_seeds": len(courses)}
            row |= {"divergence": np.nan if path is None else float(path[place])}
            row |= named("proxy_", "proxy", bootstrap.mean(proxy[:, place, None], "proxy"))
            row |= named("gold_", "gold", bootstrap.mean(gold[:, place], "gold"))
            rows.append(row)
    return pd.DataFrame(rows)


def turning_points(
    settings: Settings, scores: Scores, measured: pd.DataFrame, bootstrap: Bootstrap
) -> pd.DataFrame:
    """One row an arm: where its gold turns, with intervals over seeds.

    `iteration` of the highest mean gold, `iteration_low` and `_high` of the same in resamples of
    the seeds; `divergence` there; `fall` of gold and `rise` of the proxy from there to the end, as
    this module says; `turned` where the whole interval of the fall lies below and that of the rise
    above zero.
    """
    rows: list[Row] = []
    if main_metric(settings, scores.experiment) == (
        settings.experiments[scores.experiment].training_reward
    ):
        return pd.DataFrame()
    for arm, courses in _by_arm(courses_of(settings, scores, measured)).items():
        gold = np.stack([course.gold.mean(axis=1) for course in courses])
        proxy = np.stack([course.proxy for course in courses])
        steps = np.array(scores.iterations)
        peak = int(gold.mean(axis=0).argmax())
        paths = [course.divergence for course in courses if course.divergence is not None]
        row: Row = {"experiment": scores.experiment, "arm": arm, "n_seeds": len(courses)}
        row |= {"iteration": int(steps[peak]), "iteration_low": np.nan, "iteration_high": np.nan}
        row |= {"divergence": float(np.mean(paths, axis=0)[peak]) if paths else np.nan}
        fall, rise = (np.full((len(courses), 1), np.nan) for _ in range(2))
        if len(courses) > 1:
            peaks = bootstrap.resampled_means(gold).argmax(axis=1)
            tail = (1 - bootstrap.confidence) / 2
            ends = np.quantile(steps[peaks], [tail, 1 - tail], method="inverted_cdf")
            row |= {"iteration_low": float(ends[0]), "iteration_high": float(ends[1])}
            for own in range(len(courses)):
                others = np.delete(gold, own, axis=0).mean(axis=0)
                at = int(others.argmax())
                fall[own], rise[own] = (x[own, -1] - x[own, at] for x in (gold, proxy))
            found = (bootstrap.mean(values, "turning point") for values in (fall, rise))
            for name, interval in zip(("fall", "rise"), found, strict=True):
                row |= named(f"{name}_", name, interval)
            row["turned"] = bool(row["fall_high"] < 0 < row["rise_low"])
        else:
            nothing = {f"{name}{end}": np.nan for name in ("fall", "rise") for end in ENDS}
            row |= {**nothing, "turned": False}
        rows.append(row)
    return pd.DataFrame(rows)


ENDS = ("", "_low", "_high")


def _by_arm(courses: dict[tuple[str, int], Course]) -> dict[str, list[Course]]:
    found: dict[str, list[Course]] = {}
    for (arm, _), course in courses.items():
        found.setdefault(arm, []).append(course)
    return found
