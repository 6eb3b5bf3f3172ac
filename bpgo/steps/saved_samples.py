"""Samples as files: images as PNG, clips as MP4 with a contact sheet of the first ones."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from bpgo.config.settings import Settings
from bpgo.errors import NonFiniteError
from bpgo.storage.clips import write_clip
from bpgo.storage.contact_sheet import contact_sheet, frames_of
from bpgo.storage.files import atomic_path, disk_explained

SHEET = "contact_sheet.png"
SHEET_PROMPTS = 16


def save_samples(
    settings: Settings,
    parts: Iterable[Tensor],
    names: list[tuple[str, int]],
    texts: list[str],
    output: Path,
    iteration: int,
) -> list[str]:
    """Write samples as they are made: all clips together may be larger than the memory.

    Args:
        settings: they say how fast a clip runs and how it is encoded.
        parts: images `[b, 3, H, W]` or clips `[b, F, 3, H, W]` in [0, 1], N in all.
        names: N pairs of prompt id and sample number.
        texts: the N prompts.
        output: the folder of all samples.
        iteration: of the policy; it names the folder below `output`.

    Returns:
        N paths relative to `output`.

    Raises:
        NonFiniteError: a policy with broken weights makes samples that are no numbers.
    """
    paths: list[str] = []
    sheet: list[tuple[str, list[Image.Image]]] = []
    for part in parts:
        video, wrong = part.ndim == 5, ~part.flatten(1).isfinite().all(dim=1)
        if wrong.any():
            prompt, k = names[len(paths) + int(wrong.nonzero()[0])]
            raise NonFiniteError(
                f"{output}: sample {k} of prompt '{prompt}' is not finite: the policy's weights are"
                " broken, or its numbers overflow"
            )
        folder = f"{'clips' if video else 'images'}/iteration_{iteration:06d}"
        (output / folder).mkdir(parents=True, exist_ok=True)
        for sample in (part * 255).round().byte().cpu().numpy():
            prompt, k = names[len(paths)]
            path = f"{folder}/{prompt}_{k}.{'mp4' if video else 'png'}"
            if video:
                _save_clip(settings, sample, output / path)
                if k == 0 and len(sheet) < SHEET_PROMPTS:
                    sheet.append((f"{prompt}: {texts[len(paths)]}", frames_of(sample)))
            else:
                pixels = np.ascontiguousarray(sample.transpose(1, 2, 0))
                with disk_explained(output / path):
                    Image.fromarray(pixels).save(output / path, compress_level=1)
            paths.append(path)
    if sheet:
        with atomic_path(output / Path(paths[0]).with_name(SHEET)) as file:
            contact_sheet(sheet).save(file)
    return paths


def _save_clip(settings: Settings, clip: NDArray[np.uint8], path: Path) -> None:
    write_clip(path, clip, settings.model.frames_per_second, settings.evaluation.clip_quality)
