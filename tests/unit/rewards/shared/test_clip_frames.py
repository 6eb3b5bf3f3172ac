"""Frames and pixels of clips: those that the published code takes of the same clips."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
import torch
from tiny_video_rewards import clips

from bpgo.rewards.shared import clip_frames, preprocess
from bpgo.storage.files import read_json, repository_root

OPENCV = read_json(repository_root() / "tests" / "fixtures" / "rewards" / "videoclip_xl.json")
SHAPES = [(24, 40), (336, 336), (480, 832), (832, 480), (100, 1500), (57, 31)]
GRIDS = [
    clip_frames.PatchGrid(14, 128 * 28 * 28, 200_704),  # VideoAlign
    clip_frames.PatchGrid(16, 128 * 32 * 32, 768 * 32 * 32),  # Qwen3-VL-Embedding
]


@pytest.mark.parametrize("shape", OPENCV["levels"])
def test_squashed_levels_are_opencvs(shape: str) -> None:
    height, width = map(int, shape.split("x"))
    levels = clip_frames.squashed_levels(clips(1, 1, height, width)[0], 224)[0]
    found = levels.permute(1, 2, 0).to(torch.uint8).contiguous().numpy()
    assert hashlib.sha256(found.tobytes()).hexdigest() == OPENCV["levels"][shape]


def test_every_so_many_frames() -> None:
    """VideoCLIP-XL: `frames[:: F // 8][:8]`; fewer frames repeat."""
    for total in (8, 9, 16, 33, 81, 121):
        every = list(range(total))[:: total // 8][:8]
        assert clip_frames.stepped(total, 8) == every
    assert clip_frames.stepped(5, 8) == [0, 0, 1, 1, 2, 3, 3, 4]
    assert clip_frames.stepped(1, 8) == [0] * 8


@pytest.mark.parametrize(
    ("total", "fps", "floor", "expected"),
    [
        (81, 2, False, [0, 9, 18, 27, 36, 44, 53, 62, 71, 80]),  # 10.1 frames
        (81, 1, True, [0, 27, 53, 80]),  # 5.1 frames
        (88, 2, False, 12),  # 11 frames: an odd number is rounded to even pairs
        (88, 2, True, 10),
        (16, 2, False, [0, 5, 10, 15]),  # 2 frames, but at least 4
        (5, 2, False, [0, 1, 3, 4]),
        (3, 2, False, [0, 2]),
        (2, 2, False, [0, 1]),
        (1, 2, False, [0, 0]),
    ],
)
def test_so_many_frames_a_second(total: int, fps: float, floor: bool, expected: Any) -> None:
    found = clip_frames.by_rate(total, 16, fps, 768, floor)
    assert (len(found) if isinstance(expected, int) else found) == expected
    assert len(clip_frames.by_rate(1000, 10, 10, 64, floor)) == 64


def test_sizes_are_those_of_the_library() -> None:
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    for grid in GRIDS:
        for height, width in [*SHAPES, (1, 1), (28, 5600), (2000, 3000), (720, 1280)]:
            expected = smart_resize(height, width, 2 * grid.patch, grid.least, grid.most)
            assert grid.size(height, width) == tuple(expected)
        with pytest.raises(ValueError, match="too narrow"):
            grid.size(1, 201)


@pytest.mark.parametrize("shape", SHAPES)
def test_levels_are_torchvisions(shape: tuple[int, int]) -> None:
    """qwen_vl_utils resizes 8-bit frames."""
    from torchvision.transforms import functional as F

    grid, given = GRIDS[0], clips(1, 2, *shape)
    frames = (given[0] * 255).round().byte()
    size = list(grid.size(*shape))
    expected = F.resize(frames, size, F.InterpolationMode.BICUBIC, antialias=True).float()
    assert torch.equal(grid.levels(given)[0], expected)


def test_patches_are_those_of_the_processors() -> None:
    from transformers import Qwen2VLVideoProcessor, Qwen3VLVideoProcessor

    half = (0.5, 0.5, 0.5)
    clip = (preprocess.CLIP_MEAN, preprocess.CLIP_STD)
    for grid, kind, (mean, std) in zip(
        GRIDS, (Qwen2VLVideoProcessor, Qwen3VLVideoProcessor), (clip, (half, half)), strict=True
    ):
        levels = grid.levels(clips(2, 4))
        found, shape = grid.patches(clip_frames.normalised(levels, mean, std))
        videos = [levels[k] for k in range(2)]
        expected = kind()(
            videos,
            do_resize=False,
            do_sample_frames=False,
            cap_pixels_per_frame=True,
            return_tensors="pt",
        )
        assert torch.equal(shape, expected["video_grid_thw"])
        torch.testing.assert_close(found, expected["pixel_values_videos"], rtol=0, atol=1e-5)
