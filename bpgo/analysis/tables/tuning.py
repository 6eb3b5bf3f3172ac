"""The table of equal tuning: a row for each arm."""

from __future__ import annotations

import json
import math

import pandas as pd

from bpgo.analysis.tables.format import Block, Cell, Row, Table, number, records, spread
from bpgo.config.settings import Settings
from bpgo.config.tuning import searched

HEADER = ["Arm", "Gain", "as it stands", "second best", "Failed", "Chosen", "Its settings"]


def tuning_table(settings: Settings, summary: pd.DataFrame) -> Table:
    """From `tuning_summary`; bold: arms for which a drawn candidate was chosen."""
    tune = searched(settings)
    entry = settings.experiments[tune.experiment]
    rows = [_row(settings, row) for row in records(summary, "arm").values()]
    seeds = ", ".join(map(str, entry.seeds))
    title = (
        f"{entry.title}: {tune.candidates} candidates beside each arm as it stands,"
        f" {settings.training.iterations} iterations, tuning seeds {seeds}"
    )
    note = (
        f"Gain: of {settings.rewards[settings.analysis.main_metric].title} over the base policy on"
        f" {settings.evaluation.prompts} evaluation prompts, mean of a run's last"
        f" {settings.analysis.final_stages} policies and of seeds (± standard deviation over"
        " seeds). It is the best of several, so it flatters: what an arm gains with these settings"
        " other seeds say. Failed: candidates that lack a seed; they are never chosen. Tied: others"
        " with the same gain, of which the first was chosen. Bold: not the arm as it stands."
    )
    block = Block(title, HEADER, rows)
    return Table("tuning", "Equal tuning of every arm", note, [block], summary)


def _row(settings: Settings, row: Row) -> list[Cell]:
    drawn, title = bool(row["chosen"]), str(getattr(settings.arms[str(row["arm"])], "title", ""))
    values = json.loads(str(row["settings"]))
    name = f"candidate {row['chosen']}" if drawn else "as it stands"
    name = name if math.isfinite(row["gain"]) else "none judged"
    return [
        Cell(title, bold=drawn),
        Cell(number(row["gain"], True, 4), spread(row["sd"], 4)),
        Cell(number(row["as_it_stands"], True, 4)),
        Cell(number(row["second"], True, 4)),
        Cell(str(row["failed"])),
        Cell(name, f"{row['tied']} tied" if row["tied"] else ""),
        Cell(", ".join(f"{key} {_text(value)}" for key, value in values.items())),
    ]


def _text(value: object) -> str:
    if value is None:
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
