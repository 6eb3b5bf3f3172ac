"""Images inside a page, and the numbers behind them as CSV."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from PIL import Image

from bpgo.analysis import FIGURES
from bpgo.analysis.figures import style
from bpgo.analysis.figures.make import DATA, caption_of
from bpgo.config.settings import Settings
from bpgo.errors import UserError

GRID = (
    "Every row is one held-out prompt, from the least to the most ambiguous; within a seed all arms"
    " start from the same noise. Prompts are chosen by ambiguity alone."
)
SHEET = "The same clips as stills, of one seed and fewer prompts: time runs from left to right."


@dataclass(frozen=True)
class Picture:
    """An image inside the page; `data` are (file name, data URI) of its numbers."""

    name: str
    caption: str
    source: str  # a data URI
    data: tuple[tuple[str, str], ...] = ()
    kind: str = "still"  # or moving


def drawn_figures(
    settings: Settings, folder: Path, frames: dict[str, pd.DataFrame]
) -> tuple[list[Picture], list[str]]:
    """The figures of `folder` with their data, and the names of those that had none to draw.

    Raises:
        UserError: a figure is missing.
    """
    gaps = frames["differences"]
    drawn = gaps[gaps["reference"] == settings.analysis.reference_arm]
    pictures, empty = [], []
    for name in FIGURES:
        path = folder / f"{name}.png"
        if not path.is_file():
            raise UserError(f"{path}: no such file; run `plots` first")
        with Image.open(path) as image:
            without = image.info.get(style.DESCRIPTION) == style.NO_DATA
        if without:
            empty.append(name)
            continue
        parts = {part: drawn if part == "differences" else frames[part] for part in DATA[name]}
        data = tuple((f"{part}.csv", csv_uri(frame)) for part, frame in parts.items())
        pictures.append(Picture(name, caption_of(name, frames), file_uri(path), data))
    return pictures, empty


def grid_pictures(settings: Settings, folder: Path | None) -> list[Picture]:
    """Of each experiment the grid, which moves if it is of clips, and then their contact sheet."""
    if folder is None:
        return []
    found = []
    for experiment, entry in settings.experiments.items():
        still, moving = (Path(folder) / f"{experiment}.{kind}" for kind in ("png", "webp"))
        caption = f"{entry.title}. {GRID}"
        if moving.is_file():
            found.append(Picture(experiment, caption, file_uri(moving), kind="moving"))
        if still.is_file() and settings.model.makes == "video":
            words = f"{entry.title}. {SHEET}"
            found.append(Picture(f"{experiment}-frames", words, file_uri(still)))
        elif still.is_file():
            found.append(Picture(experiment, caption, file_uri(still)))
    return found


def file_uri(path: Path) -> str:
    """An image file as a data URI."""
    return image_uri(path.suffix.removeprefix("."), path.read_bytes())


def image_uri(kind: str, content: bytes) -> str:
    """An image as a data URI; `kind`: png or webp."""
    return f"data:image/{kind};base64," + base64.b64encode(content).decode("ascii")


def csv_uri(frame: pd.DataFrame) -> str:
    """A table as a CSV file inside the page, so that the page can be sent alone."""
    text = frame.to_csv(index=False, float_format="%.6g", lineterminator="\n")
    return "data:text/csv;base64," + base64.b64encode(text.encode()).decode("ascii")
