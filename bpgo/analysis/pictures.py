"""Images inside a page, and the numbers behind them as CSV."""

from __future__ import annotations

import base64
import io
import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from PIL import Image, UnidentifiedImageError

from bpgo.analysis import FIGURES
from bpgo.analysis.figures import style
from bpgo.analysis.figures.make import DATA, caption_of
from bpgo.config.settings import Settings
from bpgo.errors import UserError
from bpgo.storage.images import DAMAGE
from bpgo.storage.seals import again

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
        UserError: a figure is missing, cut or changed.
    """
    gaps = frames["differences"]
    drawn = gaps[gaps["reference"] == settings.analysis.reference_arm]
    pictures, empty = [], []
    for name in FIGURES:
        content, said = read_picture(folder / f"{name}.png", "plots")
        if said == style.NO_DATA:
            empty.append(name)
            continue
        parts = {part: drawn if part == "differences" else frames[part] for part in DATA[name]}
        data = tuple((f"{part}.csv", csv_uri(frame)) for part, frame in parts.items())
        pictures.append(Picture(name, caption_of(name, frames), image_uri("png", content), data))
    return pictures, empty


def grid_pictures(settings: Settings, folder: Path | None) -> list[Picture]:
    """Of each experiment the grid, which moves if it is of clips, and then their contact sheet.

    One that is not there is left out, which is said.

    Raises:
        UserError: one is cut or changed.
    """
    if folder is None:
        return []
    found = []
    for experiment, entry in settings.experiments.items():
        grid, sheet = f"{entry.title}. {GRID}", f"{entry.title}. {SHEET}"
        parts = [(experiment, "png", grid, "still")]
        if settings.model.makes == "video":
            parts = [
                (experiment, "webp", grid, "moving"),
                (f"{experiment}-frames", "png", sheet, "still"),
            ]
        for name, suffix, caption, kind in parts:
            path = Path(folder) / f"{experiment}.{suffix}"
            if not path.is_file():
                print(f"missing: {path}: no such grid; {again('grids')}", file=sys.stderr)
                continue
            content, _ = read_picture(path, "grids")
            found.append(Picture(name, caption, image_uri(suffix, content), kind=kind))
    return found


def read_picture(path: Path, command: str) -> tuple[bytes, str]:
    """The bytes of an image that `command` made, and its description.

    The checksums of a PNG are checked. A WebP has none: of it, that nothing is lost.

    Raises:
        UserError: naming the file, which is missing, cut, changed or no image.
    """
    try:
        content = path.read_bytes()
        with Image.open(io.BytesIO(content), formats=("PNG", "WEBP")) as image:
            said = str(image.info.get(style.DESCRIPTION, ""))
            image.verify()
        if image.format == "WEBP" and len(content) != 8 + int.from_bytes(content[4:8], "little"):
            raise ValueError("it is cut short")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run `{command}` first") from None
    except UnidentifiedImageError:  # its message names no file
        raise UserError(f"{path}: is no image; {again(command)}") from None
    except DAMAGE as error:
        why = " ".join(str(error).split())
        raise UserError(f"{path}: cannot be read as an image: {why}; {again(command)}") from None
    return content, said


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
