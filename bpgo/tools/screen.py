"""Words and tables for people: sizes, durations, a screen that is plain text when piped."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

PIPED_WIDTH = 120  # characters of a line where there is no terminal


def gigabytes(value: float) -> str:
    """`342 MB`, `23.8 GB`: of 10^9 bytes."""
    if value < 0.9995e-3:
        return f"{value * 1e6:.0f} kB"
    if value < 0.9995:
        return f"{value * 1e3:.0f} MB"
    return f"{value:.1f} GB" if value < 100 else f"{value:,.0f} GB"


def duration(seconds: float) -> str:
    """`12 s`, `29 min`, `5.1 h`, `3.2 days`."""
    if seconds < 99.5:
        return f"{seconds:.0f} s" if seconds >= 9.5 else f"{seconds:.1f} s"
    if seconds < 99.5 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:,.1f} days"


def table(*columns: str) -> Table:
    """An empty table."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    found = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        found.add_column(column, overflow="fold")
    return found


def show(content: RenderableType) -> None:
    """Print on standard output: with colours on a terminal, as plain text in a pipe or file."""
    import sys

    from rich.console import Console

    width = None if sys.stdout.isatty() else PIPED_WIDTH
    # Titles and licences are text: `FLUX.1 [dev]` is no markup.
    plain = Console(file=sys.stdout, width=width, highlight=False, markup=False, emoji=False)
    plain.print(content)
