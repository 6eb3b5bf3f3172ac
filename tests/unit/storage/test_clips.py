"""Clips as files: what is written comes back, and what cannot is said in one sentence."""

from __future__ import annotations

import sys
from pathlib import Path

import av
import numpy as np
import pytest

from bpgo.errors import UserError
from bpgo.storage.clips import BrokenClipError, Clip, Quality, check_clips, read_clip, write_clip

RANDOM = np.random.default_rng(0).integers(0, 256, (9, 3, 24, 32), dtype=np.uint8)


def smooth(height: int = 32, width: int = 48) -> Clip:
    """Grey waves that wander: no fine colours, which 4:2:0 cannot hold."""
    y, x = np.arange(height)[:, None] / height, np.arange(width)[None, :] / width
    waves = [127 + 100 * np.sin(5 * (x + 0.1 * k)) * np.cos(4 * y) for k in range(9)]
    return np.stack(waves)[:, None].repeat(3, axis=1).astype(np.uint8)


def test_lossless_clips_come_back_as_they_were(tmp_path: Path) -> None:
    for clip in (RANDOM, RANDOM[:1], RANDOM[:, :, :23, :31]):
        write_clip(tmp_path / "clip.mp4", clip, quality="lossless")
        found = read_clip(tmp_path / "clip.mp4")
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, clip)


def test_high_quality_is_near(tmp_path: Path) -> None:
    clip = smooth()
    write_clip(tmp_path / "clip.mp4", clip)
    found = read_clip(tmp_path / "clip.mp4")
    assert found.shape == clip.shape
    error = np.abs(found.astype(int) - clip)
    assert error.mean() < 2
    assert error.max() < 12


@pytest.mark.parametrize("level", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)])
def test_colours_survive_high_quality(level: tuple[int, ...], tmp_path: Path) -> None:
    """A wrong matrix or range between RGB and YUV moves them by 10 levels and more."""
    clip = np.tile(np.array(level, np.uint8)[:, None, None], (5, 1, 32, 32))
    write_clip(tmp_path / "clip.mp4", clip)
    assert np.abs(read_clip(tmp_path / "clip.mp4").astype(int) - clip).max() <= 3


def test_a_file_says_its_speed_and_its_colours(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip.mp4", smooth(), frames_per_second=7.5)
    with av.open(str(tmp_path / "clip.mp4")) as file:
        stream = file.streams.video[0]
        assert float(stream.average_rate or 0) == 7.5
        assert (stream.codec_context.colorspace, stream.codec_context.color_range) == (5, 1)


@pytest.mark.parametrize("quality", ["high", "lossless"])
def test_equal_clips_give_equal_bytes(quality: Quality, tmp_path: Path) -> None:
    for name in "ab":
        write_clip(tmp_path / name, RANDOM, quality=quality)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


@pytest.mark.parametrize("share", [0, 0.01, 0.1, 0.5, 0.99])
def test_a_part_of_a_clip_is_refused(share: float, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    write_clip(path, RANDOM, quality="lossless")
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(BrokenClipError, match="clip"):
        read_clip(path)


def test_what_is_no_clip_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("not a clip")
    for name in ("text.mp4", "missing.mp4"):
        with pytest.raises(BrokenClipError) as caught:
            read_clip(tmp_path / name)
        assert f"{tmp_path / name}: cannot be read as a clip" in str(caught.value)


def test_nothing_is_left_of_a_clip_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_args: object, **_options: object) -> None:
        raise RuntimeError("the disk is full")

    monkeypatch.setattr(av.VideoFrame, "from_ndarray", broken)
    with pytest.raises(RuntimeError, match="the disk is full"):
        write_clip(tmp_path / "clip.mp4", RANDOM)
    assert not list(tmp_path.iterdir())


def test_without_av_or_its_encoder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    check_clips("high", 24, 32)
    monkeypatch.setattr(av, "codecs_available", {"mpeg4"})
    with pytest.raises(UserError, match="'lossless' needs the encoder libx264rgb"):
        check_clips("lossless", 24, 32)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UserError, match="clips need the package av"):
        check_clips("high", 24, 32)
    with pytest.raises(UserError, match="clips need the package av"):
        read_clip(tmp_path / "clip.mp4")


def test_odd_sizes_need_lossless() -> None:
    check_clips("lossless", 25, 24)
    for height, width in ((25, 24), (24, 25)):
        with pytest.raises(UserError, match=f"{height} x {width}.*Allowed here: lossless"):
            check_clips("high", height, width)
