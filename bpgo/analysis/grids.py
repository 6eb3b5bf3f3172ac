"""Sample grids: base | GRPO | BPGO on the same prompts, seeds and noise."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from PIL import Image, ImageOps

from bpgo.analysis.grid_pages import Shown, draw_grid, draw_sheet
from bpgo.analysis.roles import BPGO
from bpgo.config.jobs import samples_folder
from bpgo.config.runs import Run
from bpgo.config.settings import BASE_ARM, Settings
from bpgo.errors import UserError
from bpgo.storage.clips import BrokenClipError, read_clip
from bpgo.storage.contact_sheet import TILE, enlarge, evenly_spaced, frames_of
from bpgo.storage.files import atomic_path, sha256
from bpgo.storage.images import BrokenImageError, read_image
from bpgo.storage.tables import read_table

ROWS = 6  # prompts, from the least to the most ambiguous
SEEDS = 3
FRAMES = 24  # of a clip, at most: evenly spaced ones, at the clip's own speed
PAUSE = 700  # milliseconds that a moving picture rests on its last frame
BYTES = 3_000_000  # of a moving picture, if coding it in lower quality can bring it there
QUALITIES = (80, 60, 40, 20)


def make_grids(settings: Settings, samples_root: Path, output: Path) -> None:
    """Write `output`/{experiment}.png: rows are prompts, columns seeds and, in each, the arms.

    Of clips that is `output`/{experiment}.webp, which moves, and the PNG is a contact sheet. Tiny
    samples are enlarged by whole factors without smoothing. A sample that is not there is drawn as
    an empty frame.

    Raises:
        UserError: an experiment has no samples of any of the arms; clips are there and PyAV is not.
    """
    samples_root, output = Path(samples_root), Path(output)
    output.mkdir(parents=True, exist_ok=True)
    for experiment in settings.experiments:
        shown = _shown(settings, samples_root, experiment)
        video = settings.model.makes == "video"
        if video:
            _save_moving(settings, shown, output / f"{experiment}.webp")
        page = (
            draw_sheet(settings, shown, settings.model.frames)
            if video
            else draw_grid(settings, shown)
        )
        with atomic_path(output / f"{experiment}.png") as path:
            page.save(path, optimize=True)


def shown_arms(settings: Settings, experiment: str) -> list[str]:
    """The base policy, the reference arm and BPGO, as far as there are, and given policies."""
    wanted = [settings.analysis.reference_arm, BPGO]
    own = [arm for arm in wanted if arm in settings.experiments[experiment].arms]
    return [BASE_ARM, *own, *settings.policies]


def choose_prompts(index: pd.DataFrame, rows: int = ROWS) -> pd.DataFrame:
    """`rows` prompts spread evenly over the ambiguities, the least ambiguous first."""
    prompts = index.drop_duplicates("prompt_id").sort_values(
        ["ambiguity", "prompt_id"], ignore_index=True
    )
    return prompts.iloc[evenly_spaced(len(prompts), rows)].reset_index(drop=True)


def _shown(settings: Settings, root: Path, experiment: str) -> Shown:
    arms = shown_arms(settings, experiment)
    seeds = settings.experiments[experiment].seeds[:SEEDS]
    indices = {
        (arm, seed): _last_samples(root / samples_folder(Run(experiment, arm, seed), settings))
        for seed in seeds
        for arm in arms
    }
    present = [index for index in indices.values() if len(index)]
    if not present:
        raise UserError(f"{root}/{experiment}: no samples of {', '.join(arms)}; run `sample` first")
    prompts = choose_prompts(present[0])
    tiles = {
        (row, seed, arm): _sample(
            root / samples_folder(Run(experiment, arm, seed), settings), indices[arm, seed], prompt
        )
        for row, prompt in enumerate(prompts["prompt_id"])
        for seed in seeds
        for arm in arms
    }
    given = []
    if settings.model.task == "i2v" and "first_frame" in present[0]:
        size = (settings.model.columns, settings.model.resolution)
        [name] = [key for key, index in indices.items() if index is present[0]]
        folder = root / samples_folder(Run(experiment, *name), settings)
        given = [_first_frame(folder / str(path), size) for path in prompts["first_frame"]]
    return Shown(prompts, seeds, arms, tiles, given)


def _first_frame(path: Path, size: tuple[int, int]) -> list[Image.Image]:
    """A given first frame in the clips' size; none where it cannot be read."""
    try:
        return [enlarge(ImageOps.fit(read_image(path), size))]
    except BrokenImageError:
        return []


def _last_samples(folder: Path) -> pd.DataFrame:
    """The samples of the last iteration, the first of each prompt; empty if there are none."""
    path = folder / "index.parquet"
    if not path.is_file():
        return pd.DataFrame(columns=["prompt_id", "text", "ambiguity", "path"])
    index = read_table(path, "run `sample` again")
    last = index[index["iteration"] == index["iteration"].max()]
    return last.sort_values("sample").drop_duplicates("prompt_id")


def _sample(folder: Path, index: pd.DataFrame, prompt: str) -> list[Image.Image]:
    """The frames of a sample, as large as they are shown; none where it is lost or changed."""
    rows = index[index["prompt_id"] == prompt]
    if rows.empty:
        return []
    path = folder / str(rows.iloc[0]["path"])
    digest = rows.iloc[0].get("sha256")
    if not path.is_file() or (digest is not None and sha256(path) != digest):
        return []
    try:
        if path.suffix == ".mp4":
            return frames_of(read_clip(path), FRAMES)
        return [enlarge(read_image(path))]
    except (BrokenImageError, BrokenClipError):
        return []


def _save_moving(settings: Settings, shown: Shown, path: Path) -> None:
    """All clips side by side, in step, in one animated WebP.

    Enlarged clips are coded without loss, which is small for them; larger ones in the best quality
    that brings the file below `BYTES`.
    """
    model = settings.model
    pages = [draw_grid(settings, shown, frame) for frame in range(max(1, shown.frames))]
    step = round(1000 * model.frames / model.frames_per_second / len(pages))
    tiny = max(model.resolution, model.columns) < TILE
    with atomic_path(path) as temporary:
        for quality in [100] if tiny else QUALITIES:
            pages[0].save(
                temporary,
                save_all=True,
                append_images=pages[1:],
                duration=[step] * (len(pages) - 1) + [step + PAUSE],
                loop=0,
                lossless=tiny,
                quality=quality,
            )
            if temporary.stat().st_size <= BYTES:
                break
