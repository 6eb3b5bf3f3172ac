"""Samples to be looked at while training goes on."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bpgo.run.progress import MetricsLog
from bpgo.run.shown import MOST, ShownSamples
from bpgo.storage.contact_sheet import GAP, LABEL


def coloured(reds: list[float], *shape: int) -> torch.Tensor:
    """Samples that are red to these degrees, and else black."""
    pixels = torch.zeros(len(reds), *shape)
    for row, red in enumerate(reds):
        pixels[row, ..., 0, :, :] = red
    return pixels


def picture(shown: ShownSamples) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(shown.png())))


def test_the_first_sample_of_each_prompt_is_shown() -> None:
    shown = ShownSamples(["one", "two", "three"], group=2)
    shown.see(coloured([1.0, 0.2, 0.6], 3, 24, 24))  # decoded in two parts
    shown.see(coloured([0.2, 0.4, 0.2], 3, 24, 24))
    page = picture(shown)
    row = LABEL + 96 + GAP  # 24 pixels enlarged by 4
    centres = [tuple(page[n * row + LABEL + 48, GAP + 48]) for n in range(3)]
    assert centres == [(255, 0, 0), (153, 0, 0), (102, 0, 0)]
    assert page.shape[0] == 3 * row + GAP


def test_no_more_than_a_few() -> None:
    shown = ShownSamples([str(n) for n in range(9)], group=1)
    shown.see(coloured([0.5] * 9, 3, 8, 8))
    assert len(shown.kept) == MOST


def test_frames_of_a_clip_stand_side_by_side() -> None:
    shown = ShownSamples(["a clip"], group=2)
    clip = torch.zeros(1, 3, 3, 24, 24)
    clip[0, 2] = 1.0
    shown.see(clip)
    page = picture(shown)
    assert page.shape[1] == 3 * (96 + GAP) + GAP
    assert tuple(page[LABEL + 48, 2 * (96 + GAP) + GAP + 48]) == (255, 255, 255)
    assert tuple(page[LABEL + 48, GAP + 48]) == (0, 0, 0)


def test_values_outside_are_clamped_and_half_precision_is_taken() -> None:
    shown = ShownSamples(["x"], group=1)
    shown.see(coloured([1.7], 3, 8, 8).bfloat16())
    assert shown.kept[0].dtype == torch.uint8
    assert shown.kept[0].max() == 255


def test_tensorboard_shows_them(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    shown = ShownSamples(["x"], group=1)
    shown.see(coloured([0.5], 3, 24, 24))
    log = MetricsLog(tmp_path, 0)
    log.write({"iteration": 1, "reward_mean": 0.5})
    log.write({"iteration": 2, "reward_mean": 0.6}, shown.png())
    log.close()
    found = EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    [image] = found.Images("samples")
    assert (image.step, image.width, image.height) == (2, 96 + 2 * GAP, LABEL + 96 + 2 * GAP)
    assert np.asarray(Image.open(io.BytesIO(image.encoded_image_string))).shape[2] == 3
    assert [event.step for event in found.Scalars("reward_mean")] == [1, 2]
    assert "samples" not in (tmp_path / "metrics.jsonl").read_text()


def test_without_samples_there_is_nothing_to_show() -> None:
    with pytest.raises(IndexError):
        ShownSamples([], group=1).png()
