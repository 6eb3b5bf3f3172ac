"""Join the files of all runs: what the rest of the analysis reads, and nothing else."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from bpgo.analysis.cut_prompts import Counts, count_cut
from bpgo.analysis.roles import oracle_of
from bpgo.analysis.same_code import other_code, refuse_mixed
from bpgo.analysis.statistics.bootstrap import Floats, standardized
from bpgo.analysis.statistics.reliability import rows_gain, rows_gamma, within_spread
from bpgo.config.jobs import samples_folder
from bpgo.config.runs import Run
from bpgo.config.settings import Settings
from bpgo.errors import UserError
from bpgo.storage.files import atomic_path, read_json, write_json
from bpgo.storage.tables import read_table

RUN_COLUMNS = ["experiment", "arm", "seed"]
GROUP_KEYS = [*RUN_COLUMNS, "iteration", "prompt_id"]
PROVENANCE = ("code_digest", "config_digest", "wall_seconds", "packages", "hardware", "python")


def collect(settings: Settings, root: Path, output: Path, allow_mixed: bool = False) -> None:
    """Write `output`/{scores,metrics,groups,calibration,harm}.parquet and `output`/runs.json.

    A run of the configuration that is missing or has failed is listed with its reason under
    `missing` in runs.json (and later in tables and report); it never vanishes silently.

    Args:
        settings: the configuration whose runs are joined.
        root: holds runs/, scores/ and calibration/ as the workflow writes them.
        output: a folder.
        allow_mixed: take runs of another configuration or another version of the code.

    Raises:
        UserError: a run was made with another configuration or code, or nothing is there at all.
    """
    root, output = Path(root), Path(output)
    missing: list[dict[str, Any]] = []
    manifests = _manifests(settings, root, missing)
    failed = {run for run, manifest in manifests.items() if "failed" in manifest}
    if not allow_mixed:
        option = "snakemake ... --config allow_mixed=true (of this command: --allow-mixed)"
        refuse_mixed(settings, root, manifests, option)
    frames = {
        "scores": _scores(settings, root, failed, missing),
        "metrics": _per_run(settings, root, "metrics.parquet", failed, missing),
        "groups": _groups(settings, _per_run(settings, root, "rollouts.parquet", failed, missing)),
        "calibration": _calibration(settings, root, missing),
        "harm": _harm(settings, root, failed, missing),
    }
    if frames["scores"].empty:
        raise UserError(f"{root}: there are no scores of this configuration to collect")
    output.mkdir(parents=True, exist_ok=True)
    for name, frame in frames.items():
        write_compact(frame, output / f"{name}.parquet")
    cut = count_cut(settings, root)
    write_json(output / "runs.json", _provenance(settings, manifests, missing, allow_mixed, cut))


def write_compact(frame: pd.DataFrame, path: Path) -> None:
    """Parquet with float32 numbers, dictionary-coded text and strong compression."""
    small = frame.copy()
    for name in small.columns:
        if small[name].dtype.kind == "f":
            small[name] = small[name].astype(np.float32)
        elif small[name].dtype.kind in "iu":
            small[name] = small[name].astype(np.int32)
    table = pa.Table.from_pandas(small, preserve_index=False).replace_schema_metadata()
    with atomic_path(path) as temporary:
        pq.write_table(
            table,
            temporary,
            compression="zstd",
            compression_level=19,
            write_statistics=False,
            write_page_checksum=True,
        )


def _manifests(
    settings: Settings, root: Path, missing: list[dict[str, Any]]
) -> dict[Run, dict[str, Any]]:
    found = {}
    for run in settings.runs():
        path = root / "runs" / run.folder / "manifest.json"
        if path.is_file():
            found[run] = read_json(path)
            if "failed" in found[run]:
                missing.append(_absent(run, f"training failed: {found[run]['failed']}"))
        else:
            missing.append(_absent(run, "not trained: no manifest.json"))
    return found


def _scores(
    settings: Settings, root: Path, failed: set[Run], missing: list[dict[str, Any]]
) -> pd.DataFrame:
    frames = []
    for run in [*settings.base_runs(), *settings.runs()]:
        if run in failed:
            continue
        folder = root / "scores" / run.folder
        files = sorted(folder.glob("*.parquet"))
        found = [_read(file) for file in files]
        scored = {str(name) for frame in found for name in frame["reward"].unique()}
        wanted = settings.rewards_of(run.experiment)
        absent = [name for name in wanted if name not in scored]
        if absent:
            missing.append(_absent(run, f"no scores by {', '.join(absent)}"))
        frames += [frame[frame["reward"].isin(wanted)] for frame in found]
    columns = [*RUN_COLUMNS, "iteration", "prompt_id", "ambiguity", "sample", "reward", "score"]
    if not frames:
        return pd.DataFrame(columns=columns)
    joined = pd.concat(frames, ignore_index=True)[columns]
    bad = joined[~np.isfinite(joined["score"])]
    if len(bad):
        row = bad.iloc[0]
        raise UserError(
            f"{root}/scores/{row['experiment']}/{row['arm']}/seed_{row['seed']}: {len(bad)} scores"
            f" are NaN or infinite, the first by {row['reward']} on prompt {row['prompt_id']}"
        )
    order = ["experiment", "reward", "arm", "seed", "iteration", "prompt_id", "sample"]
    _check_once(joined, order, root / "scores")
    return joined.sort_values(order, ignore_index=True)


def _per_run(
    settings: Settings, root: Path, name: str, failed: set[Run], missing: list[dict[str, Any]]
) -> pd.DataFrame:
    frames = []
    for run in settings.runs():
        if run in failed:
            continue
        path = root / "runs" / run.folder / name
        if not path.is_file():
            missing.append(_absent(run, f"no {name}"))
            continue
        frame = _read(path)
        _check_iterations(frame, settings.training.iterations, path)
        frames.append(frame.assign(**asdict(run)))
    joined = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=RUN_COLUMNS)
    return joined[[*RUN_COLUMNS, *(name for name in joined if name not in RUN_COLUMNS)]]


def _check_iterations(frame: pd.DataFrame, iterations: int, path: Path) -> None:
    """A finished run's table has every iteration, each with as many rows as the others."""
    found = set(frame["iteration"]) if "iteration" in frame else set()
    gap = next((number for number in range(1, iterations + 1) if number not in found), None)
    if gap is not None:
        raise UserError(f"{path}: iteration {gap} is missing; remove the run and train it again")
    sizes = frame["iteration"].value_counts()
    odd = sizes[sizes != sizes.mode().min()] if len(sizes) else sizes
    if len(odd):
        raise UserError(
            f"{path}: iteration {odd.index[0]} has {odd.iloc[0]} rows, and others"
            f" {sizes.mode().min()}; remove the run and train it again"
        )


def _check_once(frame: pd.DataFrame, keys: list[str], path: Path) -> None:
    twice = frame[frame.duplicated(keys)]
    if len(twice):
        row = ", ".join(f"{key} {twice.iloc[0][key]}" for key in keys)
        raise UserError(f"{path}: holds {row} twice; remove the file and make it again")


def _groups(settings: Settings, rollouts: pd.DataFrame) -> pd.DataFrame:
    """Rollouts reduced per (run, iteration, prompt): one row a group.

    `gain` and `gamma` say how well the reward ranks the group's samples by the truth (see `_truth`
    and `bpgo.analysis.statistics.reliability`), NaN where there is no truth. `reward_std` has
    ddof 0.
    """
    if rollouts.empty:
        numbers = ["ambiguity", "reward_mean", "reward_std", "prior", "weight", "gain", "gamma"]
        found = pd.DataFrame(columns=[*GROUP_KEYS, *numbers])
        return found.astype(dict.fromkeys(numbers, float))
    ordered = rollouts.sort_values([*GROUP_KEYS, "sample"], ignore_index=True)
    starts = np.flatnonzero(~ordered.duplicated(GROUP_KEYS))
    sizes = np.diff(np.append(starts, len(ordered)))
    first = ordered.iloc[starts].reset_index(drop=True)
    reward = ordered["reward"].to_numpy(dtype=float)
    truth = _truth(settings, ordered)
    mean = np.add.reduceat(reward, starts) / sizes
    variance = np.add.reduceat((reward - np.repeat(mean, sizes)) ** 2, starts) / sizes
    result = first[[*GROUP_KEYS, "ambiguity"]].copy()
    result["reward_mean"], result["reward_std"] = mean, np.sqrt(variance)
    for name in ("prior", "weight"):
        result[name] = first[name].to_numpy(float) if name in first else np.nan
    gain, gamma = (np.full(len(starts), np.nan) for _ in range(2))
    worlds = first["experiment"].to_numpy()
    for size in np.unique(sizes):  # all groups of one size at once
        chosen = np.flatnonzero(sizes == size)
        at = starts[chosen][:, None] + np.arange(size)
        known = np.isfinite(truth[at]).all(axis=1)
        chosen, at = chosen[known], at[known]
        gain[chosen] = rows_gain(reward[at], truth[at])
        gamma[chosen] = rows_gamma(reward[at], truth[at])
        for world in np.unique(worlds[chosen]):
            mine = worlds[chosen] == world
            gain[chosen[mine]] /= within_spread(truth[at[mine]])
    result["gain"], result["gamma"] = gain, gamma
    return result


def _truth(settings: Settings, rollouts: pd.DataFrame) -> Floats:
    """Of each sample the oracle among its experiment's diagnostics; without one, their mean.

    The mean is over the diagnostics, each standardized over the experiment's rollouts.
    """
    truth = np.full(len(rollouts), np.nan)
    for name in rollouts["experiment"].unique():
        known = [d for d in settings.experiments[name].diagnostics if d in rollouts]
        oracle = oracle_of(settings, name)
        known = [oracle] if oracle in known else known
        rows = (rollouts["experiment"] == name).to_numpy()
        if known:
            columns = [standardized(rollouts.loc[rows, column]) for column in known]
            truth[rows] = np.mean(columns, axis=0)
    return truth


def _calibration(settings: Settings, root: Path, missing: list[dict[str, Any]]) -> pd.DataFrame:
    columns = ["experiment", "prompt_id", "ambiguity", "sample", "reward", "score"]
    frames = []
    for experiment in settings.experiments:
        path = root / "calibration" / experiment / "samples.parquet"
        if not path.is_file():
            missing.append(
                {"experiment": experiment, "arm": "base", "seed": None, "reason": "no calibration"}
            )
            continue
        frame = _read(path)
        frame["experiment"] = experiment
        wanted = frame["reward"].isin(settings.rewards_of(experiment))
        frames.append(frame.loc[wanted, columns])
    if not frames:
        return pd.DataFrame(columns=columns)
    order = ["experiment", "reward", "prompt_id", "sample"]
    return pd.concat(frames, ignore_index=True).sort_values(order, ignore_index=True)


def _harm(
    settings: Settings, root: Path, failed: set[Run], missing: list[dict[str, Any]]
) -> pd.DataFrame:
    """What was measured beside scores; the base policy's stands in every experiment."""
    columns = [*RUN_COLUMNS, "iteration", "measure", "prompt_id", "value"]
    runs = settings.runs() if settings.measures_harm else []
    if settings.draws_diversity:
        runs = [*settings.base_runs(), *runs]
    frames = []
    for run in runs:
        if run in failed:
            continue
        path = root / "harm" / f"{samples_folder(run)}.parquet"
        if path.is_file():
            frames.append(_read(path).assign(**asdict(run)))
        else:
            missing.append(_absent(run, f"not measured: no {path.relative_to(root)}"))
    if not frames:
        return pd.DataFrame(columns=columns)
    order = ["experiment", "measure", "arm", "seed", "iteration", "prompt_id"]
    return pd.concat(frames, ignore_index=True)[columns].sort_values(order, ignore_index=True)


def _provenance(
    settings: Settings,
    manifests: dict[Run, dict[str, Any]],
    missing: list[dict[str, Any]],
    allow_mixed: bool,
    cut: Counts,
) -> dict[str, Any]:
    """What was joined and from where, as plain JSON."""
    runs = [
        {**asdict(run), **{key: manifest.get(key) for key in PROVENANCE}}
        for run, manifest in manifests.items()
    ]
    return {
        "config_digest": settings.digest(),
        "scale": settings.scale,
        "allow_mixed": allow_mixed,
        "mixed_code": other_code(manifests) is not None,
        "expected_runs": len(settings.runs()),
        "runs": runs,
        "missing": _merged(missing),
        "cut_prompts": cut,
    }


def _merged(missing: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One entry a run, its reasons joined."""
    reasons: dict[tuple[Any, ...], list[str]] = {}
    for entry in missing:
        key = (entry["experiment"], entry["arm"], entry["seed"])
        reasons.setdefault(key, []).append(entry["reason"])
    return [
        {"experiment": key[0], "arm": key[1], "seed": key[2], "reason": "; ".join(found)}
        for key, found in reasons.items()
    ]


def _absent(run: Run, reason: str) -> dict[str, Any]:
    return {**asdict(run), "reason": reason}


def _read(path: Path) -> pd.DataFrame:
    return read_table(path, "remove it, and the same command makes it again")
