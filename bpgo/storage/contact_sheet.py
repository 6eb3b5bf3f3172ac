"""Frames of clips side by side, in one picture."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from bpgo.storage.clips import Clip

TILE = 96  # pixels of one shown image, at least
FRAMES = 8  # of one clip, at most
GAP, LABEL = 4, 18


def enlarge(image: Image.Image, least: int = TILE) -> Image.Image:
    """A tiny image enlarged by a whole factor; a large one reduced to twice `least`."""
    factor = -(-least // max(image.size))
    if factor > 1:
        size = (image.width * factor, image.height * factor)
        return image.resize(size, Image.Resampling.NEAREST)
    small = image.copy()
    small.thumbnail((2 * least, 2 * least))
    return small


def evenly_spaced(total: int, wanted: int) -> list[int]:
    """At most `wanted` different numbers from 0 to `total` - 1, the first and last among them."""
    places = np.linspace(0, total - 1, min(total, wanted)).round()
    return [int(place) for place in places]


def frames_of(clip: Clip, wanted: int = FRAMES) -> list[Image.Image]:
    """Evenly spaced frames of a clip `[F, 3, H, W]`, as large as they are shown."""
    return [
        enlarge(Image.fromarray(np.ascontiguousarray(clip[k].transpose(1, 2, 0))))
        for k in evenly_spaced(len(clip), wanted)
    ]


def contact_sheet(rows: list[tuple[str, list[Image.Image]]]) -> Image.Image:
    """One row a clip: its label and, below, its frames."""
    width, height = rows[0][1][0].size
    columns = max(len(frames) for _, frames in rows)
    step = LABEL + height + GAP
    page = Image.new("RGB", (columns * (width + GAP) + GAP, len(rows) * step + GAP), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(11)
    for row, (label, frames) in enumerate(rows):
        pen.text((GAP, row * step + 3), label, font=font, fill="black")
        for column, frame in enumerate(frames):
            page.paste(frame, (GAP + column * (width + GAP), row * step + LABEL))
    return page
