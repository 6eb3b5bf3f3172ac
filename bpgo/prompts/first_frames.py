"""First frames of image to video: image files that the prompts name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from bpgo.config.model import ModelSettings
from bpgo.errors import UserError

STRETCH = 0.02  # an image may be stretched by so much along one side


def read_first_frames(paths: list[Path] | None, model: ModelSettings) -> Tensor | None:
    """Images in [0, 1], `[N, 3, H, W]`, of the model's size; None where there are no paths.

    A larger or smaller image is scaled (Lanczos, as the diffusers pipelines do). A file that is
    named several times is read once.

    Raises:
        UserError: naming the file that is missing, is no image, or has another shape.
    """
    if paths is None:
        return None
    size = (model.columns, model.resolution)
    read = {path: np.asarray(_read(path, size)) for path in dict.fromkeys(paths)}
    frames = np.stack([read[path] for path in paths])
    return torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255


def read_image(path: Path) -> Image.Image:
    """An image of any size, RGB; `UserError` naming the file if it cannot be read."""
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file: the first frame of a prompt is missing") from None
    except (OSError, UnidentifiedImageError) as error:
        raise UserError(f"{path}: cannot be read as an image: {error}") from None


def _read(path: Path, size: tuple[int, int]) -> Image.Image:
    found = read_image(path)
    if found.size == size:
        return found
    (width, height), (columns, rows) = found.size, size
    if abs(width * rows / (height * columns) - 1) > STRETCH:
        raise UserError(
            f"{path}: the first frame has {width} x {height} pixels; clips have {columns} x {rows}:"
            " crop it to that shape"
        )
    return found.resize(size, Image.Resampling.LANCZOS)
