"""Score samples by the rewards of one software environment."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from bpgo import loading
from bpgo.core.progress import Progress
from bpgo.core.rollout import chunks
from bpgo.errors import NonFiniteError, UserError
from bpgo.files import atomic_path
from bpgo.settings import Settings

KEYS = ["prompt_id", "ambiguity", "sample", "iteration"]


def score_run(
    settings: Settings,
    experiment: str,
    arm: str,
    seed: int,
    samples: Path,
    environment: str,
    output: Path,
    threads: int = 1,
) -> None:
    """Write one row per (sample, reward): experiment, arm, seed, `KEYS`, reward, score.

    Raises:
        UserError: if the samples or one of their images cannot be read, naming the file.
        NonFiniteError: naming the reward and prompt.
    """
    loading.check_names(settings, experiment, arm)
    names = [
        name
        for name in settings.rewards_of(experiment)
        if settings.rewards[name].environment == environment
    ]
    if not names:
        known = ", ".join(settings.environments_of(experiment))
        raise UserError(f"--environment: no reward runs in '{environment}'. Known: {known}")
    index = _read_index(samples)
    torch.set_num_threads(threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rewards = loading.load_rewards(settings, names, device)
    scores: dict[str, list[Tensor]] = {name: [] for name in names}
    parts = chunks(len(index), settings.evaluation.batch_size)
    with Progress(f"{experiment}/{arm}/seed_{seed}: score", len(parts)) as progress:
        for done, rows in enumerate(parts, start=1):
            part = index.iloc[rows]
            images = _read_images(samples, part.path.tolist()).to(device)
            for name, reward in rewards.items():
                scores[name].append(reward(images, part.text.tolist()).float().cpu())
            progress.step(done)
    frames = [_frame(index, name, torch.cat(found)) for name, found in scores.items()]
    table = pd.concat(frames, ignore_index=True)
    table.insert(0, "experiment", experiment)
    table.insert(1, "arm", arm)
    table.insert(2, "seed", seed)
    with atomic_path(output) as path:
        table.to_parquet(path, index=False)


def _frame(index: pd.DataFrame, name: str, scores: Tensor) -> pd.DataFrame:
    values = scores.numpy()
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        row = index.iloc[int(bad[0])]
        raise NonFiniteError(
            f"reward '{name}' gives {values[bad[0]]} for prompt '{row.prompt_id}' ({row.path})"
        )
    return index[KEYS].assign(reward=name, score=values)


def _read_index(samples: Path) -> pd.DataFrame:
    path = samples / "index.parquet"
    if not path.exists():
        raise UserError(f"{path}: no such file: run `sample` first")
    try:
        index = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    for column in [*KEYS, "text", "path"]:
        if column not in index:
            raise UserError(f"{path}: has no column '{column}'; run `sample` again")
    return index


def _read_images(folder: Path, paths: list[str]) -> Tensor:
    """`[B, 3, H, W]` in [0, 1] from PNG files."""
    images = []
    for path in paths:
        try:
            with Image.open(folder / path) as image:
                images.append(np.asarray(image.convert("RGB")))
        except (OSError, UnidentifiedImageError) as error:
            raise UserError(f"{folder / path}: cannot be read as an image: {error}") from None
        if images[-1].shape != images[0].shape:
            raise UserError(f"{folder / path}: is of another size than {folder / paths[0]}")
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
