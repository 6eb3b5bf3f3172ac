"""Sample grids: base | GRPO | BPGO on the same prompts, seeds and noise."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont, UnidentifiedImageError

from bpgo.analysis.roles import BPGO, arm_title
from bpgo.errors import UserError
from bpgo.files import atomic_path
from bpgo.settings import BASE_ARM, Run, Settings

ROWS = 6  # prompts, from the least to the most ambiguous
SEEDS = 3
TILE = 96  # pixels of one shown image, at least
GAP, HEAD, CAPTION = 6, 44, 300
INK, PAPER, FAINT = "#1a1a1a", "#ffffff", "#d9d9d9"


def make_grids(settings: Settings, samples_root: Path, output: Path) -> None:
    """Write `output`/{experiment}.png: rows are prompts, columns seeds and, in each, the arms.

    Tiny images are enlarged by whole factors without smoothing. A sample that is not there is
    drawn as an empty frame.

    Raises:
        UserError: an experiment has no samples of any of the arms.
    """
    samples_root, output = Path(samples_root), Path(output)
    output.mkdir(parents=True, exist_ok=True)
    for experiment in settings.experiments:
        page = _grid(settings, samples_root, experiment)
        with atomic_path(output / f"{experiment}.png") as path:
            page.save(path, optimize=True)


def shown_arms(settings: Settings, experiment: str) -> list[str]:
    """The base policy, the reference arm and BPGO, as far as the experiment has them."""
    wanted = [settings.analysis.reference_arm, BPGO]
    return [BASE_ARM, *(arm for arm in wanted if arm in settings.experiments[experiment].arms)]


def choose_prompts(index: pd.DataFrame, rows: int = ROWS) -> pd.DataFrame:
    """`rows` prompts spread evenly over the ambiguities, the least ambiguous first."""
    prompts = index.drop_duplicates("prompt_id").sort_values(
        ["ambiguity", "prompt_id"], ignore_index=True
    )
    places = np.unique(np.linspace(0, len(prompts) - 1, min(rows, len(prompts))).round())
    return prompts.iloc[places.astype(int)].reset_index(drop=True)


def _grid(settings: Settings, root: Path, experiment: str) -> Image.Image:
    arms = shown_arms(settings, experiment)
    seeds = settings.experiments[experiment].seeds[:SEEDS]
    indices = {
        (arm, seed): _last_samples(root / Run(experiment, arm, seed).folder)
        for seed in seeds
        for arm in arms
    }
    present = [index for index in indices.values() if len(index)]
    if not present:
        raise UserError(f"{root}/{experiment}: no samples of {', '.join(arms)}; run `sample` first")
    prompts = choose_prompts(present[0])
    tiles = {
        (row, seed, arm): _sample(
            root / Run(experiment, arm, seed).folder, indices[arm, seed], prompt
        )
        for row, prompt in enumerate(prompts["prompt_id"])
        for seed in seeds
        for arm in arms
    }
    return _draw(settings, prompts, seeds, arms, tiles)


def _last_samples(folder: Path) -> pd.DataFrame:
    """The samples of the last iteration, the first of each prompt; empty if there are none."""
    path = folder / "index.parquet"
    if not path.is_file():
        return pd.DataFrame(columns=["prompt_id", "text", "ambiguity", "path"])
    index = pd.read_parquet(path)
    last = index[index["iteration"] == index["iteration"].max()]
    return last.sort_values("sample").drop_duplicates("prompt_id")


def _sample(folder: Path, index: pd.DataFrame, prompt: str) -> Image.Image | None:
    rows = index[index["prompt_id"] == prompt]
    if rows.empty:
        return None
    path = folder / str(rows.iloc[0]["path"])
    try:
        with Image.open(path) as image:
            return enlarge(image.convert("RGB"))
    except (OSError, UnidentifiedImageError):
        return None


def enlarge(image: Image.Image, least: int = TILE) -> Image.Image:
    """A tiny image enlarged by a whole factor; a large one reduced to twice `least`."""
    factor = -(-least // max(image.size))
    if factor > 1:
        size = (image.width * factor, image.height * factor)
        return image.resize(size, Image.Resampling.NEAREST)
    small = image.copy()
    small.thumbnail((2 * least, 2 * least))
    return small


def _draw(
    settings: Settings,
    prompts: pd.DataFrame,
    seeds: list[int],
    arms: list[str],
    tiles: dict[tuple[int, int, str], Image.Image | None],
) -> Image.Image:
    known = [tile for tile in tiles.values() if tile is not None]
    width = max([tile.width for tile in known], default=TILE)
    height = max([tile.height for tile in known], default=TILE)
    block = len(arms) * (width + GAP) + 2 * GAP
    size = (CAPTION + len(seeds) * block + GAP, HEAD + len(prompts) * (height + GAP) + GAP)
    page = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(page)
    for j, seed in enumerate(seeds):
        start = CAPTION + j * block
        pen.text((start, 4), f"seed {seed}", font=_font(13, bold=True), fill=INK)
        for k, arm in enumerate(arms):
            x = start + k * (width + GAP)
            pen.text((x, 22), arm_title(settings, arm), font=_font(13), fill=INK)
            for row in range(len(prompts)):
                place = (x, HEAD + row * (height + GAP))
                tile = tiles[row, seed, arm]
                if tile is not None:
                    page.paste(tile, place)
                else:
                    corner = (place[0] + width - 1, place[1] + height - 1)
                    pen.rectangle((place, corner), outline=FAINT)
                    pen.text((place[0] + 6, place[1] + 6), "missing", font=_font(11), fill=INK)
    for row, prompt in enumerate(prompts.itertuples(index=False)):
        _caption(pen, HEAD + row * (height + GAP), str(prompt.text), float(str(prompt.ambiguity)))
    return page


def _caption(pen: ImageDraw.ImageDraw, top: int, text: str, ambiguity: float) -> None:
    """The prompt, wrapped to the caption column, and its ambiguity below."""
    font, lines, line = _font(13), [], ""
    for word in text.split():
        longer = f"{line} {word}".strip()
        if line and pen.textlength(longer, font=font) > CAPTION - 24:
            lines.append(line)
            longer = word
        line = longer
    shown = [*lines, line][:4]
    pen.multiline_text((12, top + 6), "\n".join(shown), font=font, fill=INK, spacing=3)
    below = top + 12 + 18 * len(shown)
    if math.isfinite(ambiguity):
        pen.text((12, below), f"ambiguity {ambiguity:.2f}", font=_font(11), fill="#666666")


def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib."""
    weight = "bold" if bold else "normal"
    properties = font_manager.FontProperties(family="DejaVu Sans", weight=weight)
    return ImageFont.truetype(font_manager.findfont(properties), size)
