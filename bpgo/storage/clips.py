"""Clips as MP4 files: written whole or not at all, read back as the levels that were written.

Clips are `[F, 3, H, W]`, uint8. Encoding runs in one thread, so equal clips give equal bytes with
one version of PyAV (https://pyav.basswood-io.com), which brings FFmpeg and x264 in its wheels.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bpgo.errors import UserError
from bpgo.storage.files import atomic_path

Clip = NDArray[np.uint8]
Quality = Literal["high", "lossless"]


class BrokenClipError(UserError):
    """A file is no clip, or a part of one."""


@dataclass(frozen=True)
class Encoding:
    """How a quality is encoded; crf: x264's constant rate factor, 0 is without loss."""

    encoder: str
    pixels: str  # FFmpeg's name of the pixel format
    crf: int


BT_601, NARROW = 5, 1  # how YUV stands for RGB: FFmpeg's numbers of the matrix and of the range

# high: plays everywhere; 17 is what x264's authors call visually lossless or nearly so, but colours
# have half the resolution. lossless: RGB as it is, for players that know H.264's profile 4:4:4.
ENCODINGS: dict[Quality, Encoding] = {
    "high": Encoding("libx264", "yuv420p", 17),
    "lossless": Encoding("libx264rgb", "rgb24", 0),
}


def check_size(quality: Quality, height: int, width: int) -> None:
    """Whether a quality serves clips of that size; `UserError` for `high` and an odd one."""
    if quality == "high" and (height % 2 or width % 2):
        raise UserError(
            f"evaluation.clip_quality: 'high' needs an even height and width, and clips here are"
            f" {height} x {width} (height x width). Allowed here: lossless"
        )


def check_clips(quality: Quality, height: int, width: int) -> None:
    """Whether clips of that size can be written here.

    Raises:
        UserError: PyAV or its encoder is missing, or `high` is asked for an odd size.
    """
    check_size(quality, height, width)
    chosen = ENCODINGS[quality]
    if chosen.encoder not in _av().codecs_available:
        raise UserError(
            f"evaluation.clip_quality: '{quality}' needs the encoder {chosen.encoder}, which this"
            " build of the package av lacks. The one on PyPI has it: pip install --force-reinstall"
            " --only-binary av av"
        )


def write_clip(
    path: Path, clip: Clip, frames_per_second: float = 16.0, quality: Quality = "high"
) -> None:
    """Write `clip` `[F, 3, H, W]` as H.264 in MP4, whole or not at all.

    Raises:
        UserError: see `check_clips`.
    """
    frames, _, height, width = clip.shape
    check_clips(quality, height, width)
    av, chosen = _av(), ENCODINGS[quality]
    # One thread: x264's choices depend on their number, and it writes the number into the file.
    # veryfast takes a third of the time of its default at the same size and error.
    options = {"crf": str(chosen.crf), "preset": "veryfast", "threads": "1"}
    container = {"movflags": "+faststart", "fflags": "+bitexact"}
    with (
        atomic_path(path) as temporary,
        av.open(str(temporary), "w", format="mp4", options=container) as file,
    ):
        rate = Fraction(frames_per_second).limit_denominator(1001)
        stream = file.add_stream(chosen.encoder, rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, chosen.pixels
        if quality == "high":  # say it in the file: players guess by the size otherwise
            context = stream.codec_context
            context.colorspace, context.color_range = BT_601, NARROW
        for k in range(frames):
            pixels = np.ascontiguousarray(clip[k].transpose(1, 2, 0))
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            if quality == "high":
                frame = frame.reformat(
                    format=chosen.pixels, dst_colorspace=BT_601, dst_color_range=NARROW
                )
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))


def read_clip(path: Path) -> Clip:
    """A clip as `[F, 3, H, W]`, uint8; exactly what was written if that was lossless.

    Raises:
        BrokenClipError: the file is missing, no MP4 with a video, or holds fewer frames than it
            says.
        UserError: PyAV is missing.
    """
    av = _av()
    try:
        with av.open(str(path)) as file:
            stream = file.streams.video[0]
            stream.codec_context.thread_count = 1  # a job has the threads that it was given
            stream.codec_context.options = {"err_detect": "explode"}
            frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(stream)]
            said = stream.frames
    except (av.FFmpegError, OSError, IndexError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise BrokenClipError(f"{path}: cannot be read as a clip: {reason}") from None
    if not frames or len(frames) < said:
        raise BrokenClipError(f"{path}: is cut short: it has {len(frames)} of {said} frames")
    found: Clip = np.stack(frames).transpose(0, 3, 1, 2)
    return found


def _av() -> Any:
    """PyAV, which most commands do without."""
    try:
        import av
    except ImportError as error:
        raise UserError(
            f"clips need the package av (PyAV), which cannot be imported here: {error}. Install it"
            " with: pip install -c constraints.txt av"
        ) from None
    return av
