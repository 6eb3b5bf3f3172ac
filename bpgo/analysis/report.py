"""One self-contained HTML page: question, runs, claims, tables, figures, samples, limits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from bpgo.analysis import roles
from bpgo.analysis.agree import compared
from bpgo.analysis.cut_prompts import say_cut
from bpgo.analysis.figures import style
from bpgo.analysis.figures.agreement import CAPTION
from bpgo.analysis.harm_words import harm_sentences
from bpgo.analysis.page import render, stamp
from bpgo.analysis.pictures import Picture, csv_uri, drawn_figures, grid_pictures, image_uri
from bpgo.analysis.roles import arm_title, reward_title
from bpgo.analysis.run_facts import experiments, facts
from bpgo.analysis.statistics.claims import CONTRADICTED, SUPPORTED
from bpgo.analysis.statistics.compute import load_statistics
from bpgo.analysis.statistics.critical import BETTER, EQUIVALENT, UNRESOLVED, WORSE
from bpgo.analysis.tables.format import (
    how_intervals,
    interval_text,
    number,
)
from bpgo.analysis.tables.make import build_tables
from bpgo.config.settings import BASE_ARM, Settings
from bpgo.storage.files import write_text

GENERATORS = {
    "t2i": "an image generator",
    "t2v": "a video generator",
    "i2v": "an image-to-video generator",
}
WORDS = {
    SUPPORTED: ("✓", "supported"),
    CONTRADICTED: ("✗", "contradicted"),
    EQUIVALENT: ("≈", "no difference that matters"),
    UNRESOLVED: ("?", "not resolved at this sample size"),
}


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
        grids: the folder of sample grids; one that is not there is left out, which is said.
        root: where a folder `grids` is looked for if it is not given.
        second: the results folder of a second run, whose agreement is shown; by default that of
            `analysis.second_run`.

    Raises:
        UserError: a figure is missing, a picture is damaged, or the second run is not one of this
            configuration.
    """
    frames, account = load_statistics(Path(statistics))
    if grids is None and root and (root / "grids").is_dir():
        grids = root / "grids"
    drawn, undrawn = drawn_figures(settings, Path(figures), frames)
    built = build_tables(settings, frames, account)
    second = second or (
        Path(settings.analysis.second_run) if settings.analysis.second_run else None
    )
    if second is not None:
        names = ("this run", str(second))
        table, figure = compared(settings, frames["differences"], second, names)
        with style.look():
            source = image_uri("png", style.png(figure))
        data = (("agreement.csv", csv_uri(table.data)),)
        drawn, built = [*drawn, Picture("agreement", CAPTION, source, data)], [*built, table]
    shown = [table for table in built if any(block.rows for block in table.blocks)]
    page = render(
        "report.html.j2",
        title=settings.title,
        stamp=stamp(settings, account),
        scale=settings.scale,
        generator=GENERATORS[settings.model.task],
        summary=summary(settings, frames, account),
        harm=harm_sentences(settings, frames),
        has_harm="harm" in [table.name for table in shown],
        has_path="path" in [picture.name for picture in drawn],
        claims=claims(settings, frames["claims"]),
        glance=glance(frames["claims"]),
        words=WORDS,
        facts=facts(settings, account, frames["cost"]),
        experiments=experiments(settings),
        names=list(settings.experiments),
        tables=shown,
        csv={table.name: csv_uri(table.data) for table in shown},
        empty_tables=[table.title for table in built if table not in shown],
        tables_folder=Path(tables).name,
        figures=drawn,
        empty_figures=undrawn,
        grids=grid_pictures(settings, grids),
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
    said += say_cut(settings, account.get("cut_prompts", {}))
    if account.get("allow_mixed"):
        said.append("Runs of different configurations or code were allowed (--allow-mixed).")
    return said
