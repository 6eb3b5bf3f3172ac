"""What the jobs of a workflow have made, read from their files: for the eyes of a person."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from bpgo.config.runs import Run
from bpgo.config.settings import Settings
from bpgo.errors import UserError
from bpgo.run.progress import read_lines, whole_iterations
from bpgo.storage.seals import read_object
from bpgo.storage.tables import read_arrow

Wildcards = Mapping[str, str]
SettingsOf = Callable[[str], Settings]  # by results folder


def run_folder(kind: str, wildcards: Wildcards) -> Path:
    """Where a run's files of this kind (`runs`, `scores`) lie."""
    run = Run(wildcards["experiment"], wildcards["arm"], int(wildcards["seed"]))
    return Path(wildcards["root"], kind, run.folder)


def result_of(rule: str, wildcards: Wildcards, settings_of: SettingsOf) -> str | None:
    """What a training run or a scored policy came to, in words; None for other jobs.

    Of training the mean training reward of the first and the last iteration, or why it failed; of
    scores the mean by `metric` (the main one) at the first and the last iteration that is scored.
    """
    try:
        if rule == "train":
            return _trained(run_folder("runs", wildcards))
        if rule == "score":
            file = run_folder("scores", wildcards) / f"{wildcards['environment']}.parquet"
            return _scored(file, settings_of(wildcards["root"]).analysis.main_metric)
    except (OSError, ValueError, LookupError, UserError):
        return "its files cannot be read"
    return None


def share_of(rule: str, wildcards: Wildcards, settings_of: SettingsOf) -> float | None:
    """Which share of a training run is done; None for other jobs."""
    if rule != "train":
        return None
    done = whole_iterations(run_folder("runs", wildcards) / "metrics.jsonl")
    return min(1.0, done / settings_of(wildcards["root"]).training.iterations)


def seconds_before(root: Path) -> dict[str, list[float]]:
    """How long jobs of earlier calls took, by rule: what their benchmark files say."""
    found: dict[str, list[float]] = {}
    folder = Path(root) / "benchmarks"
    for file in sorted(folder.rglob("*.tsv")):
        try:
            header, values = (line.split("\t") for line in file.read_text().splitlines()[:2])
            seconds = float(dict(zip(header, values, strict=False))["s"])
        except (OSError, ValueError, KeyError):
            continue
        found.setdefault(file.relative_to(folder).parts[0], []).append(seconds)
    return found


def _trained(folder: Path) -> str:
    failed = read_object(folder / "manifest.json", "train it again").get("failed")
    if failed:
        return f"failed: {failed}"
    entries = read_lines(folder / "metrics.jsonl")
    first, last = (float(entries[at]["reward_mean"]) for at in (0, -1))
    return f"training reward {first:.3f} to {last:.3f} in {len(entries)} iterations"


def _scored(file: Path, metric: str) -> str | None:
    table = read_arrow(file, "run `score` again", columns=["iteration", "reward", "score"])
    rows = zip(*(table.column(name).to_pylist() for name in table.column_names), strict=True)
    by_iteration: dict[int, list[float]] = {}
    for iteration, reward, score in rows:
        if reward == metric:
            by_iteration.setdefault(iteration, []).append(score)
    if not by_iteration:
        return None
    means = [sum(scores) / len(scores) for _, scores in sorted(by_iteration.items())]
    course = f"{means[0]:.3f}" if len(means) == 1 else f"{means[0]:.3f} to {means[-1]:.3f}"
    return f"{metric} {course}"
