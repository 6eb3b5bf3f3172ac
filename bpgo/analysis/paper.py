"""The paper's own figures (results/reference/paper/table*.csv) as table blocks.

They come from large models and published rewards: to what the embedded world gives, only signs and
orders compare. A mark (?) stays with every figure of which readings of the paper differ.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from bpgo.analysis.table_format import Block, Cell
from bpgo.errors import UserError
from bpgo.files import repository_root

CAPTIONS = {
    "table1": "Paper, Table 1: text and image to video (Wan2.1, Wan2.2)",
    "table2": "Paper, Table 2: text to image (FLUX; HPSv2 trains, the others judge)",
    "table3": "Paper, Table 3: the parts of BPGO (video)",
    "table4": "Paper, Table 4: scaling magnitude α (text to video, RAS)",
}
WARNING = "The paper's own numbers: its models and rewards, one run each, no intervals"


def paper_table(name: str, folder: Path | None = None) -> pd.DataFrame:
    """One of the paper's tables: task, row, metric, value, uncertain (yes or no), note.

    Raises:
        UserError: the file is missing or has other columns.
    """
    path = (folder or repository_root() / "results" / "reference" / "paper") / f"{name}.csv"
    if not path.is_file():
        raise UserError(f"{path}: no such file; it belongs to the repository")
    frame = pd.read_csv(path, dtype={"value": str, "row": str}, keep_default_na=False)
    expected = ["task", "row", "metric", "value", "uncertain", "note"]
    if list(frame.columns) != expected:
        raise UserError(f"{path}: columns are {list(frame.columns)}, expected {expected}")
    return frame


def paper_block(name: str, first_column: str = "Method") -> Block:
    """A table of the paper with its marks, labelled as not ours."""
    frame = paper_table(name)
    metrics = list(dict.fromkeys(frame["metric"]))
    rows = []
    for (task, row), cells in frame.groupby(["task", "row"], sort=False):
        by_metric = {cell.metric: cell for cell in cells.itertuples(index=False)}
        values = [_cell(by_metric[metric]) for metric in metrics]
        rows.append([Cell(str(task)), Cell(str(row)), *values])
    title = f"{CAPTIONS[name]}. {WARNING}"
    return Block(title, ["Task", first_column, *metrics], rows, foreign=True)


def paper_values(name: str, task: str) -> dict[str, dict[str, Cell]]:
    """Of one task of a table the cells by row and metric.

    Raises:
        UserError: the table has no such task.
    """
    frame = paper_table(name)
    if task not in set(frame["task"]):
        known = ", ".join(dict.fromkeys(frame["task"]))
        raise UserError(f"paper: {name} has no task '{task}'. Known: {known}")
    rows: dict[str, dict[str, Cell]] = {}
    for entry in frame[frame["task"] == task].itertuples(index=False):
        rows.setdefault(str(entry.row), {})[str(entry.metric)] = _cell(entry)
    return rows


def _cell(entry: object) -> Cell:
    value = str(getattr(entry, "value")).replace("-", "−")  # noqa: B009
    uncertain = getattr(entry, "uncertain") == "yes"  # noqa: B009
    return Cell(value + (" (?)" if uncertain else ""))
