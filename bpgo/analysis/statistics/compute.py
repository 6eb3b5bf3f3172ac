"""All statistics from the collected files and the configuration alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from bpgo.analysis import STATISTICS
from bpgo.analysis.statistics import convergence as training
from bpgo.analysis.statistics import premise
from bpgo.analysis.statistics.bootstrap import Bootstrap
from bpgo.analysis.statistics.claims import judge_claims
from bpgo.analysis.statistics.courses import mean_courses, turning_points
from bpgo.analysis.statistics.data import KINDS, Collected, Scores, load_collected
from bpgo.analysis.statistics.differences import differences, primary
from bpgo.analysis.statistics.final import curves, final_scores, gains
from bpgo.analysis.statistics.harm import harm
from bpgo.analysis.statistics.power import power
from bpgo.config.jobs import scored_runs
from bpgo.config.runs import Run
from bpgo.config.settings import BASE_ARM, Settings
from bpgo.errors import UserError
from bpgo.storage.seals import Kinds, again, read_sealed, write_sealed
from bpgo.storage.tables import read_table, write_table


def compute_statistics(settings: Settings, collected: Path, output: Path) -> None:
    """Write `output`/{name}.parquet for every name of `bpgo.analysis.STATISTICS`, and runs.json.

    Seeded by `analysis.seed`: equal input gives equal output. Runs without scores are added to
    `missing` in runs.json.

    Raises:
        UserError: a collected file is missing, or a score is not finite.
    """
    data = load_collected(settings, Path(collected))
    if not data.scores:
        raise UserError(f"{collected}: holds no scores of this configuration's experiments")
    options = settings.analysis
    bootstrap = Bootstrap(options.bootstrap_samples, options.confidence, options.seed)
    frames = _frames(settings, data, bootstrap)
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    for name in STATISTICS:
        write_table(frames[name], output / f"{name}.parquet")
    write_sealed(output / "runs.json", _account(settings, data))


def load_statistics(folder: Path) -> tuple[dict[str, pd.DataFrame], dict[str, Any]]:
    """What `compute_statistics` wrote: the frames by name, and the account of the runs."""
    folder = Path(folder)
    frames = {}
    for name in STATISTICS:
        path = folder / f"{name}.parquet"
        frames[name] = read_table(path, "run `statistics` again")
    needed: Kinds = {"complete_runs": int, "missing": list}
    return frames, read_sealed(folder / "runs.json", again("statistics"), needs=needed, may=KINDS)


def _frames(settings: Settings, data: Collected, bootstrap: Bootstrap) -> dict[str, pd.DataFrame]:
    def each(make: Callable[[Scores], pd.DataFrame]) -> pd.DataFrame:
        return pd.concat([make(scores) for scores in data.scores.values()], ignore_index=True)

    per_run = training.training_curves(settings, data)
    measures = training.convergence(settings, data)
    bins, trends = premise.premise(settings, data, bootstrap)
    trust_bins, trust_trend = premise.trust(settings, data, bootstrap)

    def along(make: Callable[..., pd.DataFrame]) -> pd.DataFrame:
        return each(lambda s: make(settings, s, data.harm_of(s.experiment), bootstrap))

    frames = {
        "final": each(lambda scores: final_scores(settings, scores, bootstrap)),
        "differences": each(lambda scores: differences(settings, scores, bootstrap)),
        "power": each(lambda scores: power(settings, scores)),
        "curves": each(lambda scores: curves(settings, scores, bootstrap)),
        "gains": each(lambda scores: gains(settings, scores)),
        "training": training.mean_training_curve(per_run, bootstrap),
        "convergence": measures,
        "convergence_summary": training.summarize(settings, measures, bootstrap),
        "premise": bins,
        "premise_summary": trends,
        "trust": trust_bins,
        "trust_summary": trust_trend,
        "cost": training.cost(data),
        "harm": along(harm),
        "courses": along(mean_courses),
        "turning": along(turning_points),
    }
    frames = {name: _whole(name, frame) for name, frame in frames.items()}
    declared = primary(settings, frames["differences"])
    return frames | {"primary": declared, "claims": judge_claims(settings, frames)}


def _whole(name: str, frame: pd.DataFrame) -> pd.DataFrame:
    """A statistic that has its columns, also where it has no rows."""
    return frame if len(frame) else pd.DataFrame(columns=STATISTICS[name])


def _account(settings: Settings, data: Collected) -> dict[str, Any]:
    """runs.json of the collection, with every run that has no complete scores under `missing`."""
    account = dict(data.runs)
    missing = list(account.get("missing", []))
    known = {Run(entry["experiment"], entry["arm"], entry["seed"]) for entry in missing}
    for run in scored_runs(settings):
        scores = data.scores.get(run.experiment)
        rewards = settings.rewards_of(run.experiment)
        absent = [
            reward
            for reward in rewards
            if scores is None or run.seed not in scores.seeds_of(run.arm, reward)
        ]
        if absent and run not in known:
            missing.append({**asdict(run), "reason": f"no final scores by {', '.join(absent)}"})
    trained = set(settings.runs())
    lost = {Run(e["experiment"], e["arm"], e["seed"]) for e in missing} & trained
    account |= {"missing": missing, "complete_runs": len(trained) - len(lost)}
    account |= {"expected_runs": len(trained), "base": BASE_ARM}
    return account
