"""First frames of image to video: image files that the prompts name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bpgo.config.model import ModelSettings
from bpgo.storage.images import read_fitting


def read_first_frames(paths: list[Path] | None, model: ModelSettings) -> Tensor | None:
    """Images in [0, 1], `[N, 3, H, W]`, of the model's size; None where there are no paths.

    A file that is named several times is read once.

    Raises:
        UserError: naming the file, as `bpgo.storage.images.read_fitting` does.
    """
    if paths is None:
        return None
    size = (model.columns, model.resolution)
    read = {path: np.asarray(read_fitting(path, size)) for path in dict.fromkeys(paths)}
    frames = np.stack([read[path] for path in paths])
    return torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
