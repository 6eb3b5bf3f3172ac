"""Sampled images and clips read from their files, by several rewards in turn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from bpgo.errors import UserError
from bpgo.storage.clips import BrokenClipError, read_clip
from bpgo.storage.files import sha256
from bpgo.storage.images import BrokenImageError, read_image

REMEMBERED = 2**28  # bytes of pixels kept for the next reward


class UnreadableSampleError(UserError):
    """A sample's file is missing or broken: no reward can score it."""


class StoredSamples:
    """Images or clips in files below `folder`; as many as fit in memory are decoded only once.

    Args:
        folder: of the samples.
        paths: of each sample, below it: PNG or MP4.
        shape: of each, `(3, H, W)` or `(F, 3, H, W)`; None: any, but the same for all that are read
            at a time.
        digests: SHA-256 of each file; None: not known.
    """

    def __init__(
        self,
        folder: Path,
        paths: list[str],
        shape: tuple[int, ...] | None = None,
        digests: list[str] | None = None,
    ) -> None:
        self.folder, self.paths, self.shape, self.digests = folder, paths, shape, digests
        self._kept: dict[int, Tensor] = {}
        self._left = REMEMBERED

    def read(self, rows: slice) -> Tensor:
        """Samples `rows` as levels [B, 3, H, W] or [B, F, 3, H, W], uint8.

        Raises:
            UnreadableSampleError: naming the first file that is broken, was changed, or is of
                another size.
        """
        if rows.start not in self._kept:
            found = self._decode(self.paths[rows])
            self._check(rows)
            if found.numel() > self._left:
                return found
            self._left -= found.numel()
            self._kept[rows.start] = found
        return self._kept[rows.start]

    def _check(self, rows: slice) -> None:
        for path, digest in zip(self.paths[rows], (self.digests or [])[rows], strict=False):
            if sha256(self.folder / path) != digest:
                raise UnreadableSampleError(
                    f"{self.folder / path}: was changed after it was sampled (by its digest in"
                    " index.parquet); run `sample` again"
                )

    def _decode(self, paths: list[str]) -> Tensor:
        samples, shape = [], self.shape
        for path in paths:
            file = self.folder / path
            sample = _read_clip(file) if file.suffix == ".mp4" else _read_image(file)
            shape = shape or sample.shape
            if sample.shape != shape:
                raise UnreadableSampleError(
                    f"{file}: is {_described(sample.shape)}, and the samples here are"
                    f" {_described(shape)}; run `sample` again"
                )
            samples.append(np.moveaxis(sample, -3, -1))
        # In memory the channels stay last, as in the files: a convolution's sums depend on it.
        return torch.from_numpy(np.stack(samples)).movedim(-1, -3)


def _read_image(file: Path) -> NDArray[np.uint8]:
    """Levels [3, H, W]."""
    try:
        return np.asarray(read_image(file)).transpose(2, 0, 1)
    except BrokenImageError as error:
        raise UnreadableSampleError(f"{error}; run `sample` again") from None


def _read_clip(file: Path) -> NDArray[np.uint8]:
    """Levels [F, 3, H, W]."""
    try:
        return read_clip(file)
    except BrokenClipError as error:
        raise UnreadableSampleError(f"{error}; run `sample` again") from None
    except UserError as error:  # PyAV is missing
        raise UnreadableSampleError(str(error)) from None


def _described(shape: tuple[int, ...]) -> str:
    size = f"{shape[-2]} x {shape[-1]} pixels"
    return f"{shape[0]} frames of {size}" if len(shape) == 4 else size


def digests_of(index: pd.DataFrame) -> list[str] | None:
    """SHA-256 of the files of an index of samples; None where it does not say."""
    return index.sha256.tolist() if "sha256" in index else None
