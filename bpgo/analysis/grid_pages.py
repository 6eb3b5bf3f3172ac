"""How a grid of samples is drawn: images in tiles, with captions around them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pandas as pd
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

from bpgo.analysis.roles import arm_title
from bpgo.config.settings import Settings
from bpgo.storage.contact_sheet import TILE, evenly_spaced

GAP, HEAD, CAPTION = 6, 44, 300
ARM = 120  # pixels of an arm's name beside its frames
SHEET_ROWS, SHEET_FRAMES = 4, 6  # prompts and frames of a contact sheet
INK, PAPER, FAINT = "#1a1a1a", "#ffffff", "#d9d9d9"

Tiles = dict[tuple[int, int, str], list[Image.Image]]


@dataclass(frozen=True)
class Shown:
    """What a grid shows: `tiles[row, seed, arm]` are a sample's frames, none if it is missing.

    An image is one frame. `prompts` (prompt_id, text, ambiguity) are the rows. Image to video:
    `given[row]` is the first frame that the prompt gave, none if it cannot be read.
    """

    prompts: pd.DataFrame
    seeds: list[int]
    arms: list[str]
    tiles: Tiles
    given: list[list[Image.Image]] = field(default_factory=list)

    @property
    def frames(self) -> int:
        """The most frames that a sample has."""
        return max((len(tile) for tile in self.tiles.values()), default=0)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the largest tile."""
        known = [tile[0] for tile in self.tiles.values() if tile]
        width = max([tile.width for tile in known], default=TILE)
        return width, max([tile.height for tile in known], default=TILE)


def draw_grid(settings: Settings, shown: Shown, frame: int = 0) -> Image.Image:
    """Rows are prompts, columns seeds and, in each, the arms; of a clip one frame."""
    width, height = shown.size
    block = len(shown.arms) * (width + GAP) + 2 * GAP
    left = CAPTION + (width + 3 * GAP if shown.given else 0)
    page = _page(left + len(shown.seeds) * block + GAP, len(shown.prompts), height)
    pen = ImageDraw.Draw(page)
    _given(page, pen, shown, list(range(len(shown.prompts))), height + GAP)
    for j, seed in enumerate(shown.seeds):
        start = left + j * block
        pen.text((start, 4), f"seed {seed}", font=_font(13, bold=True), fill=INK)
        for k, arm in enumerate(shown.arms):
            x = start + k * (width + GAP)
            pen.text((x, 22), arm_title(settings, arm), font=_font(13), fill=INK)
            for row in range(len(shown.prompts)):
                place = (x, HEAD + row * (height + GAP))
                _place(page, pen, place, shown.tiles[row, seed, arm][frame:], shown.size)
    for row in range(len(shown.prompts)):
        _caption(pen, HEAD + row * (height + GAP), shown.prompts.iloc[row])
    return page


def draw_sheet(settings: Settings, shown: Shown, total: int) -> Image.Image:
    """A contact sheet of clips of the first seed: frames in columns; prompts, and in each arms.

    `total` is the number of frames of a whole clip, of which `shown` may have fewer.
    """
    width, height = shown.size
    places = evenly_spaced(shown.frames, SHEET_FRAMES)
    numbers = evenly_spaced(total, shown.frames)
    rows = evenly_spaced(len(shown.prompts), SHEET_ROWS)
    names = CAPTION + (width + 3 * GAP if shown.given else 0)
    left = names + ARM
    page = _page(left + len(places) * (width + GAP), len(rows) * len(shown.arms), height)
    pen = ImageDraw.Draw(page)
    _given(page, pen, shown, rows, len(shown.arms) * (height + GAP))
    pen.text((left, 4), f"seed {shown.seeds[0]}", font=_font(13, bold=True), fill=INK)
    for column, place in enumerate(places):
        x = left + column * (width + GAP)
        pen.text((x, 22), f"frame {numbers[place] + 1}", font=_font(13), fill=INK)
    for j, row in enumerate(rows):
        for k, arm in enumerate(shown.arms):
            y = HEAD + (j * len(shown.arms) + k) * (height + GAP)
            pen.text((names, y + 6), arm_title(settings, arm), font=_font(13), fill=INK)
            tile = shown.tiles[row, shown.seeds[0], arm]
            for column, place in enumerate(places):
                _place(page, pen, (left + column * (width + GAP), y), tile[place:], shown.size)
        _caption(pen, HEAD + j * len(shown.arms) * (height + GAP), shown.prompts.iloc[row])
    return page


def _given(
    page: Image.Image, pen: ImageDraw.ImageDraw, shown: Shown, rows: list[int], step: int
) -> None:
    """The given first frames of `rows` in a column, `step` pixels apart; nothing without any."""
    if shown.given:
        pen.text((CAPTION, 22), "given frame", font=_font(13), fill=INK)
        for place, row in enumerate(rows):
            _place(page, pen, (CAPTION, HEAD + place * step), shown.given[row], shown.size)


def _page(width: int, rows: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, HEAD + rows * (height + GAP) + GAP), PAPER)


def _place(
    page: Image.Image,
    pen: ImageDraw.ImageDraw,
    place: tuple[int, int],
    tile: list[Image.Image],
    size: tuple[int, int],
) -> None:
    """The first of `tile`, or an empty frame where there is none."""
    if tile:
        page.paste(tile[0], place)
        return
    corner = (place[0] + size[0] - 1, place[1] + size[1] - 1)
    pen.rectangle((place, corner), outline=FAINT)
    pen.text((place[0] + 6, place[1] + 6), "missing", font=_font(11), fill=INK)


def _caption(pen: ImageDraw.ImageDraw, top: int, prompt: pd.Series) -> None:
    """The prompt, wrapped to the caption column, and its ambiguity below."""
    font, lines, line = _font(13), [], ""
    for word in str(prompt["text"]).split():
        longer = f"{line} {word}".strip()
        if line and pen.textlength(longer, font=font) > CAPTION - 24:
            lines.append(line)
            longer = word
        line = longer
    shown = [*lines, line][:4]
    pen.multiline_text((12, top + 6), "\n".join(shown), font=font, fill=INK, spacing=3)
    ambiguity = float(prompt["ambiguity"])
    if math.isfinite(ambiguity):
        below = top + 12 + 18 * len(shown)
        pen.text((12, below), f"ambiguity {ambiguity:.2f}", font=_font(11), fill="#666666")


def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib."""
    weight = "bold" if bold else "normal"
    properties = font_manager.FontProperties(family="DejaVu Sans", weight=weight)
    return ImageFont.truetype(font_manager.findfont(properties), size)
