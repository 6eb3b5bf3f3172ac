"""One self-contained HTML page: question, runs, claims, tables, figures, samples, limits."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from bpgo.analysis import FIGURES, roles
from bpgo.analysis.agree import compared
from bpgo.analysis.figures import style
from bpgo.analysis.figures.agreement import CAPTION
from bpgo.analysis.figures.make import CAPTIONS
from bpgo.analysis.harm_words import harm_sentences
from bpgo.analysis.roles import arm_title, reward_title
from bpgo.analysis.statistics.claims import CONTRADICTED, SUPPORTED
from bpgo.analysis.statistics.compute import load_statistics
from bpgo.analysis.statistics.critical import BETTER, EQUIVALENT, UNRESOLVED, WORSE
from bpgo.analysis.tables.format import (
    how_differences,
    how_intervals,
    interval_text,
    number,
)
from bpgo.analysis.tables.make import build_tables
from bpgo.config.settings import BASE_ARM, Settings
from bpgo.errors import UserError
from bpgo.storage.files import write_text

GENERATORS = {
    "t2i": "an image generator",
    "t2v": "a video generator",
    "i2v": "an image-to-video generator",
}
GRID = (
    "Every row is one held-out prompt, from the least to the most ambiguous; within a seed all arms"
    " start from the same noise. Prompts are chosen by ambiguity alone."
)
SHEET = "The same clips as stills, of one seed and fewer prompts: time runs from left to right."

WORDS = {
    SUPPORTED: ("✓", "supported"),
    CONTRADICTED: ("✗", "contradicted"),
    EQUIVALENT: ("≈", "no difference that matters"),
    UNRESOLVED: ("?", "not resolved at this sample size"),
}


@dataclass(frozen=True)
class Picture:
    """An image inside the page."""

    name: str
    caption: str
    source: str  # a data URI
    kind: str = "still"  # or moving


def make_report(
    settings: Settings,
    statistics: Path,
    tables: Path,
    figures: Path,
    output: Path,
    grids: Path | None = None,
    root: Path | None = None,
    second: Path | None = None,
) -> None:
    """Write the page to `output`; every sentence about outcomes comes from the statistics.

    Args:
        settings: the configuration.
        statistics: the folder of the statistics.
        tables: the folder of the saved tables, named in the page.
        figures: the folder with the PNG of every figure.
        output: the page's path.
        grids: the folder of sample grids; a page without grids says so.
        root: where `grids` is looked for if it is not given.
        second: the results folder of a second run, whose agreement is shown; by default that of
            `analysis.second_run`.

    Raises:
        UserError: a figure is missing, or the second run is not one of this configuration.
    """
    frames, account = load_statistics(Path(statistics))
    grids = grids or (root / "grids" if root else None)
    drawn, built = _figures(Path(figures)), build_tables(settings, frames, account)
    second = second or (
        Path(settings.analysis.second_run) if settings.analysis.second_run else None
    )
    if second is not None:
        names = ("this run", str(second))
        table, figure = compared(settings, frames["differences"], second, names)
        with style.look():
            picture = Picture("agreement", CAPTION, _data_uri("png", style.png(figure)))
        drawn, built = [*drawn, picture], [*built, table]
    environment = Environment(
        loader=PackageLoader("bpgo.analysis", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html.j2").render(
        title=settings.title,
        scale=settings.scale,
        generator=GENERATORS[settings.model.task],
        summary=summary(settings, frames, account),
        harm=harm_sentences(settings, frames),
        claims=claims(settings, frames["claims"]),
        glance=glance(frames["claims"]),
        words=WORDS,
        facts=facts(settings, account, frames["cost"]),
        experiments=experiments(settings),
        names=list(settings.experiments),
        tables=built,
        tables_folder=Path(tables).name,
        figures=drawn,
        grids=_grids(settings, grids),
        missing=account["missing"],
        expected=account["expected_runs"],
        limits=limits(settings, frames, account),
        intervals=f"{how_intervals(settings)}; of differences by repeated measures",
    )
    write_text(Path(output), page)


def summary(settings: Settings, frames: dict[str, pd.DataFrame], account: Any) -> list[str]:
    """A few sentences per experiment, made from the numbers."""
    sentences = []
    reference = settings.analysis.reference_arm
    for experiment, entry in settings.experiments.items():
        parts = []
        trained = _gap(frames, experiment, reference, BASE_ARM, entry.training_reward)
        metric = roles.main_metric(settings, experiment)
        judged = _gap(frames, experiment, reference, BASE_ARM, metric)
        name, judge = arm_title(settings, reference), reward_title(settings, metric)
        if trained is not None and judged is not None:
            parts.append(
                f"{name} {_moves(trained)} its training reward by {_size(trained)} over the base"
                f" policy, and {_moves(judged)} the main metric ({judge}) by {_size(judged)}."
            )
        declared = frames["primary"]
        for _, row in declared[declared["experiment"] == experiment].iterrows():
            pair = f"{arm_title(settings, row['arm'])} against"
            pair += f" {arm_title(settings, row['reference'])}"
            judge = reward_title(settings, row["reward"])
            size = _size(row, "")
            parts.append(f"Declared beforehand, {pair} on {judge}: {size}, {_clear(row)}.")
        if parts:
            sentences.append(f"{entry.title}. {' '.join(parts)}")
    lost = len(account["missing"])
    if lost:
        sentences.append(f"Missing or incomplete: {lost}, listed at the end of this page.")
    return sentences


def _gap(
    frames: dict[str, pd.DataFrame], experiment: str, arm: str, reference: str, reward: str
) -> Any:
    gaps = frames["differences"]
    found = gaps[
        (gaps["experiment"] == experiment)
        & (gaps["arm"] == arm)
        & (gaps["reference"] == reference)
        & (gaps["reward"] == reward)
    ]
    return found.iloc[0] if len(found) else None


def _moves(gap: Any) -> str:
    return {BETTER: "raises", WORSE: "lowers"}.get(gap["verdict"], "changes")


def _size(gap: Any, prefix: str = "simultaneous_") -> str:
    limits = (gap[f"{prefix}low_sd"], gap[f"{prefix}high_sd"])
    interval = interval_text(*limits, signed=True, digits=2)
    return f"{number(gap['difference_sd'], signed=True, digits=2)} base sd {interval}"


def _clear(gap: Any) -> str:
    if gap["verdict"] == EQUIVALENT:
        return "no difference that matters"
    if gap["verdict"] != UNRESOLVED:
        return str(gap["verdict"])
    seen = gap["detectable_alone_sd"]
    known = f"; a difference of {number(seen, digits=2)} would have been seen"
    return "not resolved at this sample size" + (known if seen > 0 else "")


def claims(settings: Settings, frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The checklist: each claim with its verdict by experiment and the tests behind it."""
    result = []
    for claim, rows in frame.groupby("claim", sort=False):
        cases = []
        for experiment, tests in rows.groupby("experiment", sort=False):
            cases.append(
                {
                    "experiment": settings.experiments[str(experiment)].title,
                    "verdict": tests["claim_verdict"].iloc[0],
                    "p": number(tests["claim_p"].iloc[0]),
                    "tests": [_test(entry) for entry in tests.to_dict("records")],
                }
            )
        result.append({"id": claim, "statement": rows["statement"].iloc[0], "cases": cases})
    return result


def glance(frame: pd.DataFrame) -> dict[str, dict[str, str]]:
    """Verdict by statement and experiment; empty where an experiment cannot test a claim."""
    by_claim = frame.drop_duplicates(["claim", "experiment"])
    return {
        str(statement): dict(zip(rows["experiment"], rows["claim_verdict"], strict=True))
        for statement, rows in by_claim.groupby("statement", sort=False)
    }


def _test(entry: dict[Any, Any]) -> dict[str, Any]:
    signed = entry["unit"] != "ratio"
    units = ("seed", entry["n_seeds"]) if entry["n_seeds"] else ("group", entry["n_groups"])
    return {
        "quantity": entry["quantity"],
        "value": number(entry["estimate"], signed),
        "interval": interval_text(entry["low"], entry["high"], signed),
        "unit": entry["unit"],
        "expected": entry["expected"].replace("-", "−") + (" (any)" if entry["any_of"] else ""),
        "seeds": _counted(*units),
        "verdict": entry["verdict"],
        "seen_from": _seen_from(entry),
    }


def _seen_from(entry: dict[Any, Any]) -> str:
    """Of an unresolved difference the smallest one that could have been seen; else empty."""
    if entry["verdict"] != UNRESOLVED or not entry["detectable"] > 0:
        return ""
    return f"seen from {number(entry['detectable'], digits=2)}"


def _counted(unit: str, number: int) -> str:
    return f"{number} {unit}" if number == 1 else f"{number} {unit}s"


def facts(settings: Settings, account: dict[str, Any], cost: pd.DataFrame) -> dict[str, str]:
    """What was run, on what, for how long, and the digests that prove it."""
    runs = account.get("runs", [])
    machines = {
        f"{(run.get('hardware') or {}).get('processor', 'unknown')},"
        f" {(run.get('hardware') or {}).get('cores', '?')} cores"
        for run in runs
    }
    versions = {
        ", ".join(f"{name} {version}" for name, version in (run.get("packages") or {}).items())
        for run in runs
    }
    seconds = [float(run["wall_seconds"]) for run in runs if run.get("wall_seconds")]
    training, rollout = settings.training, settings.rollout
    codes = sorted({str(run.get("code_digest")) for run in runs})
    found = {
        "Model": settings.model.title,
        "Samples": _samples(settings),
        "Training": f"{training.iterations} iterations, {rollout.prompts_per_iteration} prompts ×"
        f" {rollout.group_size} samples, {rollout.steps} sampler steps,"
        f" {training.optimizer_steps} optimizer steps, learning rate {training.learning_rate:g}"
        + "".join(f", {arm} {rate:g}" for arm, rate in training.learning_rates.items()),
        "Evaluation": f"{settings.evaluation.prompts} held-out prompts,"
        f" {settings.evaluation.samples_per_prompt} sample(s) a prompt and seed, ODE sampler with"
        f" {settings.evaluation.steps} steps",
        "Intervals": f"{how_intervals(settings)}; {how_differences(settings)}",
        "Runs": f"{account['complete_runs']} of {account['expected_runs']} complete",
        "Training time": _duration(seconds),
        "Time per iteration": f"{cost['seconds'].median():.2f} s (median)"
        if len(cost)
        else "unknown",
        "Machine": "; ".join(sorted(machines)) or "unknown",
        "Packages": "; ".join(sorted(versions)) or "unknown",
        "Configuration digest": settings.digest(),
        "Code digest": ", ".join(codes) or "unknown",
    }
    collected = account.get("config_digest", settings.digest())
    if collected != settings.digest():
        found["Collected under"] = f"configuration digest {collected}, before this one"
    if account.get("mixed_code", len(codes) > 1):
        found["Warning"] = "runs of different versions of the code are mixed here"
    return found


def _samples(settings: Settings) -> str:
    model = settings.model
    size = f"{model.columns} × {model.resolution} pixels"
    if model.makes == "image":
        return f"images of {size}"
    given = "from a given first frame, " if model.task == "i2v" else ""
    return (
        f"clips of {model.frames} frames of {size}, {given}"
        f"shown at {model.frames_per_second:g} frames a second"
    )


def _duration(seconds: list[float]) -> str:
    if not seconds:
        return "unknown"
    mean = sum(seconds) / len(seconds)
    return f"{sum(seconds) / 60:.1f} min over all runs, {mean:.0f} s a run on average"


def experiments(settings: Settings) -> list[dict[str, str]]:
    """One row an experiment: what trains, who judges, which arms and seeds."""
    return [
        {
            "title": entry.title,
            "training": reward_title(settings, entry.training_reward),
            "judges": ", ".join(reward_title(settings, name) for name in entry.judges),
            "main": reward_title(settings, roles.main_metric(settings, name_of)),
            "arms": ", ".join(arm_title(settings, arm) for arm in roles.arms_of(settings, name_of)),
            "seeds": ", ".join(str(seed) for seed in entry.seeds),
        }
        for name_of, entry in settings.experiments.items()
    ]


def limits(
    settings: Settings, frames: dict[str, pd.DataFrame], account: dict[str, Any]
) -> list[str]:
    """What the reader must keep in mind, as far as it applies to these runs."""
    fewest = int(frames["final"]["n_seeds"].min())
    columns = max(len(settings.rewards_of(name)) for name in settings.experiments)
    wrong = 1 - settings.analysis.confidence**columns
    said = [
        f"Seeds are the unit, and an arm has as few as {fewest}. Differences that are small against"
        " the spread of seeds stay unresolved; that is not evidence of equality. Arms are called"
        " equivalent only where the whole interval lies within the margin.",
        "Intervals of differences hold for all arms of a column at once, not for all columns: of"
        f" tables with {columns} rewards up to {wrong:.0%} have a bold cell by chance. Only the"
        " primary contrasts were declared beforehand.",
        "Intervals take the arms' runs to vary alike and not to collapse. Where one seed in ten"
        " collapses, they cover less than they say (docs/statistics.md).",
        "Hyper-parameters are the configuration's, not tuned for each arm.",
    ]
    if settings.prompts.kind.startswith("scenes") and settings.model.resolution < 100:
        said.append(
            "The policy, the rewards and the oracle here are tiny models of a made-up world. That"
            " an effect appears or fails here does not carry over to large models by itself."
        )
    training = frames["training"]
    if len(training) and not bool(training["adjusted"].all()):
        said.append(
            "The calibration does not know every training prompt, so the curve of the training"
            " reward on rollouts contains the chance of which prompts were drawn."
        )
    if not any(roles.SHUFFLED in entry.arms for entry in settings.experiments.values()):
        said.append(
            "The control with shuffled RAS weights was not run: a gain of RAS may come from the"
            " spread of its weights alone."
        )
    if account.get("allow_mixed"):
        said.append("Runs of different configurations or code were allowed (--allow-mixed).")
    return said


def _figures(folder: Path) -> list[Picture]:
    pictures = []
    for name in FIGURES:
        path = folder / f"{name}.png"
        if not path.is_file():
            raise UserError(f"{path}: no such file; run `plots` first")
        pictures.append(Picture(name, CAPTIONS[name], _file_uri(path)))
    return pictures


def _grids(settings: Settings, folder: Path | None) -> list[Picture]:
    """Of each experiment the grid, which moves if it is of clips, and then their contact sheet."""
    if folder is None:
        return []
    found = []
    for experiment, entry in settings.experiments.items():
        still, moving = (Path(folder) / f"{experiment}.{kind}" for kind in ("png", "webp"))
        if moving.is_file():
            uri = _file_uri(moving)
            found.append(Picture(experiment, f"{entry.title}. {GRID}", uri, "moving"))
        if still.is_file() and settings.model.makes == "video":
            uri = _file_uri(still)
            found.append(Picture(f"{experiment}-frames", f"{entry.title}. {SHEET}", uri))
        elif still.is_file():
            found.append(Picture(experiment, f"{entry.title}. {GRID}", _file_uri(still)))
    return found


def _file_uri(path: Path) -> str:
    return _data_uri(path.suffix.removeprefix("."), path.read_bytes())


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64," + base64.b64encode(content).decode("ascii")
