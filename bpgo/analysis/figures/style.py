"""One look for all figures: sizes, colours, markers, and how a figure is saved.

Colours are those of Okabe and Ito (2008) and of Paul Tol, told apart by colour-blind readers; every
arm also has a marker of its own among those of its colour. Widths are those of a one- and a
two-column figure in print.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO
from itertools import pairwise
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
LETTERS = 14  # of a line of that title
DOTS_PER_INCH = 200
GREY = "#767676"
DESCRIPTION, NO_DATA = "Description", "no data"  # a PNG file's note that nothing was drawn

# Colour, marker and line of each arm. A family shares its line, and most of them a colour.
_LOOKS = {
    BASE_ARM: (GREY, "d", "-"),
    "grpo": ("#000000", "o", "-"),
    "dr_grpo": ("#000000", "X", "-"),
    "bpgo": ("#0072B2", "D", "-"),
    "bpgo_ras": ("#56B4E9", "s", "-"),
    "bpgo_crt": ("#009E73", "p", "-"),
    "bpgo_released": ("#CC79A7", "*", "-"),
    "bpgo_standardized": ("#004B76", "P", "-"),
    "bpgo_ras_shuffled": ("#8C6D1F", "h", "-"),
    # policy gradients on steps with noise: another kernel, another step, another weight of steps
    "dance_grpo": ("#E69F00", "^", "-"),
    "flow_grpo": ("#D55E00", "v", "-"),
    "flow_grpo_fast": ("#D55E00", "<", "-"),
    "flow_cps": ("#D55E00", ">", "-"),
    "grpo_guard": ("#D55E00", "H", "-"),
    "flow_dppo": ("#D55E00", "D", "-"),
    "mix_grpo": ("#882255", "s", "-"),
    "tempflow_grpo": ("#882255", "^", "-"),
    "flash_grpo": ("#882255", "v", "-"),
    "branch_grpo": ("#882255", "*", "-"),
    # other rewards or advantages
    "ddpo": ("#999933", "o", "-"),
    "gdpo": ("#999933", "s", "-"),
    "pref_grpo": ("#999933", "D", "-"),
    "vipo": ("#999933", "P", "-"),
    # forward processes
    "diffusion_nft": ("#44AA99", "o", "-."),
    "awm": ("#44AA99", "s", "-."),
    "dgpo": ("#44AA99", "^", "-."),
    "crd": ("#44AA99", "v", "-."),
    # anchors
    "oracle_reward": ("#117733", "^", ":"),
    "oracle_trust": ("#117733", "P", ":"),
    "anti_trust": ("#AA3377", "v", ":"),
    "random_reward": (GREY, "X", ":"),
}
_SPARE = ("#332288", "#661100", "#6699CC", "#CC6677", "#556B2F")
_MARKERS = "<>8d"  # no other arm of these colours

REWARD_LOOKS = (("#000000", "o"), ("#0072B2", "D"), ("#D55E00", "^"), ("#009E73", "v"))

SETTINGS: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "text.parse_math": False,  # titles are the user's: a dollar is a dollar
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


def arm_look(arm: str) -> tuple[str, str, str]:
    """Colour, marker and line of an arm; one that the suite does not know has them by its name."""
    number = zlib.crc32(arm.encode())
    spare = (_SPARE[number % len(_SPARE)], _MARKERS[number // 8 % len(_MARKERS)], "--")
    return _LOOKS.get(arm, spare)


def spare_look(place: int) -> tuple[str, str]:
    """Colour and marker of what has none by its name."""
    return _SPARE[place % len(_SPARE)], _MARKERS[place % len(_MARKERS)]


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
    """A sentence in place of a plot that has no data; the figure is marked as one without."""
    axes.figure.set_gid(NO_DATA)
    axes.axis("off")
    axes.text(0.5, 0.5, text, ha="center", va="center", wrap=True, transform=axes.transAxes)


def legend_below(figure: Figure, handles: list[Any], labels: list[str], columns: int = 4) -> None:
    """One legend for the whole figure, under it; in fewer columns where it would be too wide."""
    for count in range(min(columns, len(labels)), 0, -1):
        legend = figure.legend(handles, labels, loc="outside lower center", ncols=count)
        if count == 1 or legend.get_window_extent().width <= figure.bbox.width:
            return
        legend.remove()


def save_figure(figure: Figure, folder: Path, name: str) -> None:
    """Write `folder`/{name}.png and .pdf; equal figures give equal bytes."""
    figure.draw_without_rendering()  # lay out once; `savefig` would do it four times
    for axes in figure.axes:
        _thin_ticks(figure, axes)
    figure.set_layout_engine("none")
    with atomic_path(folder / f"{name}.png") as path:
        path.write_bytes(png(figure))
    with atomic_path(folder / f"{name}.pdf") as path:
        nothing = {"CreationDate": None, "Producer": None, "Creator": None}
        FigureCanvasPdf(figure).print_pdf(path, metadata=nothing)


def _thin_ticks(figure: Figure, axes: Axes) -> None:
    """Fewer ticks where their labels touch: long numbers in a narrow panel."""
    for most in (4, 3, 2):
        if not isinstance(axes.xaxis.get_major_locator(), MaxNLocator) or not _touch(axes):
            return
        axes.xaxis.set_major_locator(MaxNLocator(most))
        figure.draw_without_rendering()


def _touch(axes: Axes) -> bool:
    low, high = sorted(axes.get_xlim())
    shown = [tick for tick in axes.xaxis.get_major_ticks() if low <= tick.get_loc() <= high]
    labels = [tick.label1 for tick in shown if tick.label1.get_visible() and tick.label1.get_text()]
    boxes = [label.get_window_extent() for label in labels]
    return any(left.x1 >= right.x0 for left, right in pairwise(boxes))


def png(figure: Figure) -> bytes:
    """The figure as a PNG file's bytes; one without data says so in its `Description`."""
    content = BytesIO()
    note = {DESCRIPTION: NO_DATA} if figure.get_gid() == NO_DATA else {}
    FigureCanvasAgg(figure).print_png(content, metadata={"Software": None, **note})
    return content.getvalue()
