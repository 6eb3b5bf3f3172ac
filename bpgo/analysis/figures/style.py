"""One look for all figures: sizes, colours, markers, and how a figure is saved.

Colours are those of Okabe and Ito (2008), told apart by colour-blind readers; every arm also has
its own marker. Widths are those of a one- and a two-column figure in print.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from textwrap import wrap
from typing import Any, cast

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import ArrayLike, NDArray

from bpgo.config.settings import BASE_ARM
from bpgo.storage.files import atomic_path

WIDE = 7.0  # inches
PANEL = 1.15  # inches of a narrow panel with a title
LETTERS = 15  # of a line of that title
DOTS_PER_INCH = 200
GREY = "#767676"

_LOOKS = {
    BASE_ARM: (GREY, "d"),
    "grpo": ("#000000", "o"),
    "dance_grpo": ("#E69F00", "^"),
    "flow_grpo": ("#D55E00", "v"),
    "bpgo": ("#0072B2", "D"),
    "bpgo_ras": ("#56B4E9", "s"),
    "bpgo_crt": ("#009E73", "p"),
    "bpgo_released": ("#CC79A7", "*"),
    "bpgo_ras_shuffled": ("#8C6D1F", "h"),
}
_SPARE = ("#332288", "#882255", "#44AA99", "#999933", "#661100", "#6699CC")
_MARKERS = "<>p8d4"

REWARD_LOOKS = (("#000000", "o"), ("#0072B2", "D"), ("#D55E00", "^"), ("#009E73", "v"))

SETTINGS: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.4,
    "lines.markersize": 4,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "pdf.fonttype": 42,
}


@contextmanager
def look() -> Iterator[None]:
    """The settings of every figure, for the length of a block."""
    with matplotlib.rc_context(cast(Any, SETTINGS)):
        yield


def arm_look(arm: str, place: int = 0) -> tuple[str, str]:
    """Colour and marker of an arm; arms that the suite does not know take one by their place."""
    spare = (_SPARE[place % len(_SPARE)], _MARKERS[place % len(_MARKERS)])
    return _LOOKS.get(arm, spare)


def new_figure(height: float, width: float = WIDE) -> Figure:
    """An empty figure, sizes in inches."""
    figure = Figure(figsize=(width, height), layout="constrained", dpi=DOTS_PER_INCH)
    FigureCanvasAgg(figure)
    return figure


def width_for(panels: int) -> float:
    """The width of a figure with so many panels in a row, in inches: their titles stay apart."""
    return max(WIDE, PANEL * panels)


def reach(middle: ArrayLike, low: ArrayLike, high: ArrayLike) -> NDArray[np.float64]:
    """How far intervals reach below and above `[2, N]`, as `errorbar` takes it; unknown ends: 0.

    Where all values are equal an end may lie beyond the middle by their rounding.
    """
    centre, below, above = (np.atleast_1d(np.asarray(v, float)) for v in (middle, low, high))
    return np.nan_to_num(np.stack([centre - below, above - centre])).clip(min=0)


def zero_line(axes: Axes, vertical: bool = False) -> None:
    """The line of no change."""
    draw = axes.axvline if vertical else axes.axhline
    draw(0, color=GREY, linewidth=0.9, zorder=1)


def few_ticks(axes: Axes) -> None:
    """At most four short tick labels, for narrow panels."""
    axes.xaxis.set_major_locator(MaxNLocator(3))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}".replace("-", "−")))


def whole_ticks(axes: Axes) -> None:
    """No tick between two iterations."""
    axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))


def panel_titles(row: Iterable[Axes], titles: list[str], letters: int = LETTERS) -> None:
    """Titles above a row of narrow panels, on short lines whose first stand at one height."""
    lines = [wrap(title, letters, break_on_hyphens=False) for title in titles]
    most = max([2, *map(len, lines)])
    for axes, own in zip(row, lines, strict=False):
        axes.set_title("\n".join(own) + "\n" * (most - len(own)), loc="left")


def say(axes: Axes, text: str) -> None:
    """A sentence in place of a plot that has no data."""
    axes.axis("off")
    axes.text(0.5, 0.5, text, ha="center", va="center", wrap=True, transform=axes.transAxes)


def legend_below(figure: Figure, handles: list[Any], labels: list[str], columns: int = 4) -> None:
    """One legend for the whole figure, under it."""
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=min(columns, len(labels)))


def save_figure(figure: Figure, folder: Path, name: str) -> None:
    """Write `folder`/{name}.png and .pdf; equal figures give equal bytes."""
    figure.draw_without_rendering()  # lay out once; `savefig` would do it four times
    figure.set_layout_engine("none")
    with atomic_path(folder / f"{name}.png") as path:
        path.write_bytes(png(figure))
    with atomic_path(folder / f"{name}.pdf") as path:
        nothing = {"CreationDate": None, "Producer": None, "Creator": None}
        FigureCanvasPdf(figure).print_pdf(path, metadata=nothing)


def png(figure: Figure) -> bytes:
    """The figure as a PNG file's bytes."""
    content = BytesIO()
    FigureCanvasAgg(figure).print_png(content, metadata={"Software": None})
    return content.getvalue()
