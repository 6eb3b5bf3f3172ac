"""The paper's own figures (results/reference/paper/table*.csv) as table blocks.

They come from large models and published rewards: to what the embedded world gives, only signs and
orders compare. A mark (?) stays with every figure of which readings of the paper differ.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from bpgo.analysis.tables.format import Block, Cell
from bpgo.config.paper import PaperSettings
from bpgo.errors import UserError
from bpgo.storage.files import repository_root

CAPTIONS = {
    "table1": "Paper, Table 1: text and image to video (Wan2.1, Wan2.2)",
    "table2": "Paper, Table 2: text to image (FLUX; HPSv2 trains, the others judge)",
    "table3": "Paper, Table 3: the parts of BPGO (video)",
    "table4": "Paper, Table 4: scaling magnitude α (text to video, RAS)",
}
NOTE = (
    " (paper): the paper's own models and rewards, one run each, no intervals. (?): readings of the"
    " paper differ or flag this figure."
)
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


def paper_block(name: str, first_column: str = "Method", task: str = "") -> Block:
    """A table of the paper with its marks, labelled as not ours.

    Only the rows of `task` where the table has some, else all.
    """
    frame = paper_table(name)
    chosen = frame["task"].str.startswith(task)
    frame = frame[chosen] if chosen.any() else frame
    metrics = list(dict.fromkeys(frame["metric"]))
    rows = []
    for (of, row), cells in frame.groupby(["task", "row"], sort=False):
        by_metric = {cell.metric: cell for cell in cells.itertuples(index=False)}
        values = [_cell(by_metric[metric]) for metric in metrics]
        rows.append([Cell(str(of)), Cell(str(row)), *values])
    title = f"{CAPTIONS[name]}. {WARNING}"
    return Block(title, ["Task", first_column, *metrics], rows, foreign=True)


def paper_rows(paper: PaperSettings | None, rewards: list[str]) -> list[list[Cell]]:
    """The paper's main comparison as rows under our `rewards`: one run each."""
    if paper is None:
        return []
    values = _values(paper.table, paper.task)
    if not values:
        known = ", ".join(dict.fromkeys(paper_table(paper.table)["task"]))
        raise UserError(f"paper: {paper.table} has no task '{paper.task}'. Known: {known}")
    return [_row(paper, f"{row} (paper)", cells, rewards) for row, cells in values.items()]


def paper_part_rows(paper: PaperSettings | None, rewards: list[str]) -> list[list[Cell]]:
    """The paper's Table 3 as rows under our `rewards`, with GRPO of Table 1; none of an image."""
    return _with_grpo(paper, "table3", "", "neither", rewards)


def paper_alpha_rows(paper: PaperSettings | None, rewards: list[str]) -> list[list[Cell]]:
    """The paper's Table 4 as rows under our `rewards`, with GRPO of Table 1; text to video only."""
    return _with_grpo(paper, "table4", ", RAS", "0", rewards)


def _with_grpo(
    paper: PaperSettings | None, table: str, suffix: str, grpo: str, rewards: list[str]
) -> list[list[Cell]]:
    values = _values(table, paper.task + suffix) if paper else {}
    if paper is None or not values:
        return []
    reference = _values("table1", paper.task)["GRPO"]
    labelled = {f"{grpo} (GRPO; paper, Table 1)": reference}
    labelled |= {f"{row} (paper)": cells for row, cells in values.items()}
    return [_row(paper, label, cells, rewards) for label, cells in labelled.items()]


def _row(
    paper: PaperSettings, label: str, values: dict[str, Cell], rewards: list[str]
) -> list[Cell]:
    """A label, the number of runs, and a cell for each reward."""
    cells = [values.get(paper.metrics.get(name, ""), Cell("n/a")) for name in rewards]
    return [Cell(label), Cell("1"), *cells]


def _values(name: str, task: str) -> dict[str, dict[str, Cell]]:
    """Of one task of a table the cells by row and metric; none of a task that it has not."""
    frame = paper_table(name)
    rows: dict[str, dict[str, Cell]] = {}
    for entry in frame[frame["task"] == task].itertuples(index=False):
        rows.setdefault(str(entry.row), {})[str(entry.metric)] = _cell(entry)
    return rows


def _cell(entry: object) -> Cell:
    value = str(getattr(entry, "value")).replace("-", "−")  # noqa: B009
    uncertain = getattr(entry, "uncertain") == "yes"  # noqa: B009
    return Cell(value + (" (?)" if uncertain else ""))
