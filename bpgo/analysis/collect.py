"""Join the files of all runs: what the rest of the analysis reads, and nothing else."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
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
from bpgo.config import contents
from bpgo.config.jobs import harm_folder, measured_runs, scored_runs
from bpgo.config.runs import Run
from bpgo.config.settings import Settings
from bpgo.errors import UserError
from bpgo.run.manifest import read_manifest
from bpgo.storage.files import atomic_path, sha256
from bpgo.storage.seals import write_sealed
from bpgo.storage.tables import UnsealedError, read_table

RUN_COLUMNS = ["experiment", "arm", "seed"]
GROUP_KEYS = [*RUN_COLUMNS, "iteration", "prompt_id"]
MIXED = "snakemake ... --config allow_mixed=true (of this command: --allow-mixed)"
PROVENANCE = ("code_digest", "config_digest", "wall_seconds", "packages", "hardware", "python")


def collect(settings: Settings, root: Path, output: Path, allow_mixed: bool = False) -> None:
    """Write `output`/{scores,metrics,groups,calibration,harm}.parquet and `output`/runs.json.

    A run of the configuration that is missing or has failed is listed with its reason under
    `missing` in runs.json (and later in tables and report), and is said; it never vanishes
    silently. A file that a finished job must have left is no such case: it was lost.

    Args:
        settings: the configuration whose runs are joined.
        root: holds runs/, scores/ and calibration/ as the workflow writes them.
        output: a folder.
        allow_mixed: take runs of another configuration or another version of the code.

    Raises:
        UserError: a run was made with another configuration or code; a file was lost or changed,
            or is another's; nothing is there at all.
    """
    root, output = Path(root), Path(output)
    read = _Reader(settings, root, allow_mixed)
    missing: list[dict[str, Any]] = []
    manifests = _manifests(settings, root, missing)
    failed = {run for run, manifest in manifests.items() if "failed" in manifest}
    if not allow_mixed:
        refuse_mixed(settings, root, manifests, MIXED)
    frames = {
        "scores": _scores(read, manifests, failed, missing),
        "metrics": _per_run(read, "metrics", manifests, failed, missing),
        "groups": _groups(settings, _per_run(read, "rollouts", manifests, failed, missing)),
        "calibration": _calibration(read, missing),
        "harm": _harm(read, failed, missing),
    }
    if frames["scores"].empty:
        raise UserError(f"{root}: there are no scores of this configuration to collect")
    output.mkdir(parents=True, exist_ok=True)
    for name, frame in frames.items():
        write_compact(frame, output / f"{name}.parquet")
    account = _provenance(settings, manifests, missing, allow_mixed, count_cut(settings, root))
    account["files"] = {f"{name}.parquet": sha256(output / f"{name}.parquet") for name in frames}
    write_sealed(output / "runs.json", account)
    for entry in account["missing"]:
        seed = "" if entry["seed"] is None else f"/seed_{entry['seed']}"
        place = f"{entry['experiment']}/{entry['arm']}{seed}"
        print(f"missing: {place}: {entry['reason']}", file=sys.stderr)


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
            found[run] = read_manifest(path, "remove the run, and train it again")
            if "failed" in found[run]:
                missing.append(_absent(run, f"training failed: {found[run]['failed']}"))
        else:
            missing.append(_absent(run, "not trained: no manifest.json"))
    return found


@dataclass(frozen=True)
class _Reader:
    """Reads what the jobs of `settings` left below `root`, and refuses what they did not."""

    settings: Settings
    root: Path
    allow_mixed: bool

    def __call__(self, path: Path, of: str) -> pd.DataFrame:
        """A table that holds what `of` says (`bpgo.config.contents`)."""
        remedy = "remove it, and the same command makes it again"
        if self.allow_mixed:
            return read_table(path, remedy, sealed=False)
        try:
            return read_table(path, remedy, of=of)
        except UnsealedError as error:
            raise UserError(f"{error}. Or take files of earlier versions: {MIXED}") from None


def _scores(
    read: _Reader,
    manifests: dict[Run, dict[str, Any]],
    failed: set[Run],
    missing: list[dict[str, Any]],
) -> pd.DataFrame:
    settings, root, frames = read.settings, read.root, []
    untrained = {*settings.runs()} - manifests.keys()
    for run in scored_runs(settings):
        if run in failed:
            continue
        folder = root / "scores" / run.folder
        files = sorted(folder.glob("*.parquet"))
        if files and run in untrained:
            raise UserError(
                f"{root / 'runs' / run.folder}/manifest.json: no such file, but the run has scores"
                f" ({files[0]}); remove these, and train the run again"
            )
        found = [read(file, contents.scores(settings, run, file.stem)) for file in files]
        scored = {str(name) for frame in found for name in frame["reward"].unique()}
        wanted = settings.rewards_of(run.experiment)
        absent = [name for name in wanted if name not in scored]
        if absent:
            missing.append(_absent(run, f"no scores by {', '.join(absent)}"))
        frames += [_at_the_end(settings, run, each[each["reward"].isin(wanted)]) for each in found]
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
    read: _Reader,
    name: str,
    manifests: dict[Run, dict[str, Any]],
    failed: set[Run],
    missing: list[dict[str, Any]],
) -> pd.DataFrame:
    """The tables `name` of all runs that are finished."""
    settings, frames = read.settings, []
    for run in settings.runs():
        if run in failed:
            continue
        path = read.root / "runs" / run.folder / f"{name}.parquet"
        if not path.is_file() and run not in manifests:
            missing.append(_absent(run, f"no {path.name}"))
            continue
        frame = read(path, contents.training(settings, run, name))
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


def _calibration(read: _Reader, missing: list[dict[str, Any]]) -> pd.DataFrame:
    settings = read.settings
    columns = ["experiment", "prompt_id", "ambiguity", "sample", "reward", "score"]
    frames = []
    for experiment in settings.experiments:
        path = read.root / "calibration" / experiment / "samples.parquet"
        # `judge` writes the scales last.
        if not path.is_file() and not path.with_name("scales.json").is_file():
            missing.append(
                {"experiment": experiment, "arm": "base", "seed": None, "reason": "no calibration"}
            )
            continue
        frame = read(path, contents.calibration_scores(settings, experiment))
        frame["experiment"] = experiment
        wanted = frame["reward"].isin(settings.rewards_of(experiment))
        frames.append(frame.loc[wanted, columns])
    if not frames:
        return pd.DataFrame(columns=columns)
    order = ["experiment", "reward", "prompt_id", "sample"]
    return pd.concat(frames, ignore_index=True).sort_values(order, ignore_index=True)


def _harm(read: _Reader, failed: set[Run], missing: list[dict[str, Any]]) -> pd.DataFrame:
    """What was measured beside scores; the base policy's stands in every experiment."""
    settings, root = read.settings, read.root
    columns = [*RUN_COLUMNS, "iteration", "measure", "prompt_id", "value"]
    frames = []
    for run in measured_runs(settings):
        if run in failed:
            continue
        path = root / "harm" / f"{harm_folder(run)}.parquet"
        if path.is_file():
            found = read(path, contents.harm(settings, run)).assign(**asdict(run))
            frames.append(_at_the_end(settings, run, found))
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
        **({"policies": _given(settings)} if settings.policies else {}),
    }


def _given(settings: Settings) -> dict[str, dict[str, Any]]:
    """Where given policies came from, and the SHA-256 of their files."""
    keys = {"lora", "weights", "source", "files"}
    return {
        name: policy.model_dump(mode="json", include=keys, exclude_none=True)
        for name, policy in settings.policies.items()
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


def _at_the_end(settings: Settings, run: Run, frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of a given policy, which no training brought about, stand where trained arms end."""
    if run.arm not in settings.policies:
        return frame
    return frame.assign(iteration=settings.training.stages()[-1])


def _absent(run: Run, reason: str) -> dict[str, Any]:
    return {**asdict(run), "reason": reason}
