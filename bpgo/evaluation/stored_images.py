"""Sampled images read from their files, by several rewards in turn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from bpgo.errors import UserError

REMEMBERED = 2**28  # bytes of pixels kept for the next reward


class UnreadableImageError(UserError):
    """An image file is missing or broken: no reward can score it."""


class StoredImages:
    """Images in files below `folder`; as many as fit in memory are decoded only once."""

    def __init__(self, folder: Path, paths: list[str]) -> None:
        self.folder, self.paths = folder, paths
        self._kept: dict[int, Tensor] = {}
        self._left = REMEMBERED

    def read(self, rows: slice) -> Tensor:
        """Images `rows` as levels [B, 3, H, W], uint8.

        Raises:
            UnreadableImageError: naming the first file that is no image, or is of another size.
        """
        if rows.start not in self._kept:
            found = self._decode(self.paths[rows])
            if found.numel() > self._left:
                return found
            self._left -= found.numel()
            self._kept[rows.start] = found
        return self._kept[rows.start]

    def _decode(self, paths: list[str]) -> Tensor:
        images = []
        for path in paths:
            file = self.folder / path
            try:
                with Image.open(file) as image:
                    images.append(np.asarray(image.convert("RGB")))
            except (OSError, UnidentifiedImageError) as error:
                raise UnreadableImageError(
                    f"{file}: cannot be read as an image: {error}; run `sample` again"
                ) from None
            if images[-1].shape != images[0].shape:
                raise UnreadableImageError(
                    f"{file}: is of another size than {self.folder / paths[0]}"
                )
        return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
