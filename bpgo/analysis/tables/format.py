"""A table as data, and as Markdown, LaTeX and CSV."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from bpgo.analysis.statistics.critical import BETTER, EQUIVALENT, UNRESOLVED, WORSE
from bpgo.config.settings import Settings
from bpgo.storage.files import atomic_path, write_text

Row = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """What a reader sees: a text, smaller detail such as an interval, and whether it is bold."""

    text: str
    detail: str = ""
    bold: bool = False


@dataclass(frozen=True)
class Block:
    """Rows under one header. `foreign` marks figures that are not ours."""

    title: str
    header: list[str]
    rows: list[list[Cell]]
    foreign: bool = False


@dataclass(frozen=True)
class Table:
    """One table: blocks for people, `data` for the CSV file."""

    name: str
    title: str
    note: str
    blocks: list[Block]
    data: pd.DataFrame = field(default_factory=pd.DataFrame)


def number(value: float, signed: bool = False, digits: int = 3) -> str:
    """A number with a real minus sign; `n/a` for NaN."""
    if not math.isfinite(value):
        return "n/a"
    text = f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.replace("-", "").replace("+", "")
    return text.replace("-", "−")


def interval_text(low: float, high: float, signed: bool = False, digits: int = 3) -> str:
    """`[low, high]`, or `[n/a]` where there is no interval (one seed)."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return "[n/a]"
    return f"[{number(low, signed, digits)}, {number(high, signed, digits)}]"


def spread(value: float, digits: int) -> str:
    """A standard deviation or error beside its mean; empty where it is not known."""
    return f"± {number(value, digits=digits)}" if math.isfinite(value) else ""


def save_table(table: Table, folder: Path) -> None:
    """Write `folder`/{name}.csv, .md and .tex."""
    with atomic_path(folder / f"{table.name}.csv") as path:
        table.data.to_csv(path, index=False, float_format="%.6g", lineterminator="\n")
    write_text(folder / f"{table.name}.md", to_markdown(table))
    write_text(folder / f"{table.name}.tex", to_latex(table))


def to_markdown(table: Table) -> str:
    """GitHub Markdown: one pipe table a block."""
    lines = [f"# {escape_markdown(table.title)}", ""]
    for block in table.blocks:
        lines += [f"**{escape_markdown(block.title)}**", ""]
        if not block.rows:
            lines += ["(no data)", ""]
            continue
        lines.append(_pipes([escape_markdown(name) for name in block.header]))
        lines.append(_pipes(["---"] * len(block.header)))
        lines += [_pipes([_markdown_cell(cell) for cell in row]) for row in block.rows]
        lines.append("")
    return "\n".join([*lines, escape_markdown(table.note), ""])


def to_latex(table: Table) -> str:
    """A `table` float with one booktabs `tabular` a block; needs booktabs, nothing else."""
    lines = ["% Needs \\usepackage{booktabs}", "\\begin{table}", "\\centering", "\\small"]
    lines.append(f"\\caption{{{escape_latex(table.title)}. {escape_latex(table.note)}}}")
    lines.append(f"\\label{{tab:{table.name}}}")
    for block in table.blocks:
        lines += ["", f"\\medskip\\textit{{{escape_latex(block.title)}}}\\par\\smallskip"]
        if not block.rows:
            lines.append("(no data)\\par")
            continue
        lines.append(f"\\begin{{tabular}}{{l{'r' * (len(block.header) - 1)}}}")
        lines.append("\\toprule")
        lines.append(" & ".join(escape_latex(name) for name in block.header) + " \\\\")
        lines.append("\\midrule")
        lines += [" & ".join(_latex_cell(cell) for cell in row) + " \\\\" for row in block.rows]
        lines += ["\\bottomrule", "\\end{tabular}"]
    return "\n".join([*lines, "\\end{table}", ""])


def escape_markdown(text: str) -> str:
    """Text that Markdown shows as it stands, also inside a pipe table."""
    for mark in "\\`*_{}<>#|":
        text = text.replace(mark, f"\\{mark}")
    return text.replace("\n", " ")


_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "[": "{[}",
    "]": "{]}",
    "−": "$-$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "α": r"$\alpha$",
    "γ": r"$\gamma$",
    "ρ": r"$\rho$",
    "√": r"$\surd$",
    "≈": r"$\approx$",
    "†": r"\dag{}",
    "\n": " ",
}


def escape_latex(text: str) -> str:
    """Text that LaTeX prints as it stands."""
    return "".join(_LATEX.get(letter, letter) for letter in text)


def _pipes(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _markdown_cell(cell: Cell) -> str:
    text = escape_markdown(cell.text)
    text = f"**{text}**" if cell.bold else text
    return f"{text} {escape_markdown(cell.detail)}".strip()


def _latex_cell(cell: Cell) -> str:
    text = escape_latex(cell.text)
    text = f"\\textbf{{{text}}}" if cell.bold else text
    return f"{text} {{\\scriptsize {escape_latex(cell.detail)}}}" if cell.detail else text


def records(frame: pd.DataFrame, key: str) -> dict[str, Row]:
    """The rows of a frame by the value of a column that tells them apart."""
    rows = [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]
    return {str(row[key]): row for row in rows}


def how_intervals(settings: Settings) -> str:
    """What the brackets mean."""
    options = settings.analysis
    return (
        f"{options.confidence:.0%} intervals by a hierarchical bootstrap over seeds and prompts"
        f" ({options.bootstrap_samples} resamples, widened for few seeds)"
    )


def how_differences(settings: Settings) -> str:
    """What the brackets of differences between arms mean."""
    confidence = f"{settings.analysis.confidence:.0%}"
    return (
        f"{confidence} intervals of differences by repeated measures (variance of seeds pooled over"
        " arms, t), which hold for all arms of a column at once (Dunnett)"
    )


def difference_cell(row: Row, prefix: str = "simultaneous_", visible: str = "detectable") -> Cell:
    """A difference in base sd with its interval; of an unresolved one also what could be seen.

    Bold: better or worse. An equivalent one is marked.
    """
    text = number(row["difference_sd"], signed=True, digits=2)
    text += " ≈" if row["verdict"] == EQUIVALENT else ""
    detail = interval_text(row[f"{prefix}low_sd"], row[f"{prefix}high_sd"], signed=True, digits=2)
    if row["verdict"] == UNRESOLVED and math.isfinite(row[f"{visible}_sd"]):
        detail += f" seen from {number(row[f'{visible}_sd'], digits=2)}"
    return Cell(text, detail, row["verdict"] in (BETTER, WORSE))


def how_verdicts(settings: Settings) -> str:
    """What the marks of `difference_cell` mean."""
    margin = settings.analysis.equivalence_margin
    return (
        "Base sd: standard deviation of the base policy's scores within a prompt. Bold: the"
        f" interval excludes zero. ≈: all of it lies within ±{margin:g} base sd, the margin below"
        " which a difference does not matter. Seen from: where neither holds, the smallest"
        " difference that would have been found with 80% power."
    )
