"""The embedded video world's truth as a judge: it reads the clip and checks the caption's facts."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Literal

from bpgo.config.settings import RewardSettings

if TYPE_CHECKING:
    from torch import Tensor

    from bpgo.scenes.video.oracle import Parsed

REMEMBERED = 256
"""Batches whose contents are kept: all outputs of one process read a clip once."""

_parsed: dict[bytes, Parsed] = {}


class VideoOracleSettings(RewardSettings):
    """Keys of a `scenes_video_oracle` reward."""

    kind: Literal["scenes_video_oracle"] = "scenes_video_oracle"
    # soft: share of the caption's facts met; strict: all of them; objects: of count and looks;
    # motion: of stated motions; first_frame: agreement with it; steadiness: without jumps.
    output: Literal["soft", "strict", "objects", "motion", "first_frame", "steadiness"] = "soft"

    @property
    def media(self) -> Literal["image", "video"]:
        """It scores clips."""
        return "video"


class ScenesVideoOracle:
    """The oracle of `bpgo.scenes.video.oracle`; no arm trains on it."""

    Settings = VideoOracleSettings

    def __init__(self, settings: VideoOracleSettings, device: str = "cpu") -> None:
        self.settings = settings
        self.device = device
        self.needs_first_frames = settings.output == "first_frame"
        self.reads_text = settings.output not in ("first_frame", "steadiness")

    def __call__(
        self, images: Tensor, texts: list[str], first_frames: Tensor | None = None
    ) -> Tensor:
        """Judge clips [B, 5, 3, 32, 32] in [0, 1] for B captions: [B] float32 in [0, 1].

        `first_frames` [B, 3, 32, 32] in [0, 1] are needed for the output `first_frame` only.

        Raises:
            UserError: a text outside the caption grammar.
            ValueError: shapes that do not fit, or no first frames where they are needed.
        """
        from bpgo.scenes.video.oracle import judge
        from bpgo.scenes.video.render import check_clips

        check_clips(images.shape, len(texts))
        if self.needs_first_frames and first_frames is None:
            raise ValueError("the output first_frame needs first frames")
        given = first_frames if self.needs_first_frames else None
        judged = judge(images, texts, given, _contents(images))
        scores: Tensor = getattr(judged, self.settings.output)
        return scores


def _contents(clips: Tensor) -> Parsed:
    """What clips [B, 5, 3, 32, 32] hold."""
    from bpgo.scenes.video.oracle import parse_clips

    name = hashlib.sha256(clips.detach().cpu().contiguous().numpy().data).digest()
    if name not in _parsed:
        if len(_parsed) == REMEMBERED:
            _parsed.clear()
        _parsed[name] = parse_clips(clips)
    return _parsed[name]


REWARD = ScenesVideoOracle
