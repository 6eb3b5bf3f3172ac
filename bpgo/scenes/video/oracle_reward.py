"""The embedded video world's truth as a judge: it reads the clip and checks the caption's facts."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Literal

from bpgo.config.settings import RewardSettings
from bpgo.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from bpgo.records import Samples
    from bpgo.scenes.video.oracle import Parsed

REMEMBERED = 256
"""Batches whose contents are kept: all outputs of one process read a clip once."""

_parsed: dict[bytes, Parsed] = {}


class VideoOracleSettings(RewardSettings):
    """Keys of a `scenes_video_oracle` reward."""

    kind: Literal["scenes_video_oracle"] = "scenes_video_oracle"
    # soft: share of the caption's facts met; graded: the same by how far each is; strict: all of
    # them; objects: of count and looks; motion: of stated motions; first_frame: agreement with it;
    # steadiness: without jumps.
    output: Literal[
        "soft", "graded", "strict", "objects", "motion", "first_frame", "steadiness"
    ] = "soft"

    @property
    def media(self) -> Literal["image", "video"]:
        """It scores clips."""
        return "video"

    @property
    def reads_text(self) -> bool:
        """The caption does not count for how steady a clip is, or agrees with its first frame."""
        return self.output not in ("first_frame", "steadiness")

    def check_text(self, text: str) -> None:
        """It knows the captions of the embedded video world alone."""
        from bpgo.scenes.video.captions import parse

        if self.reads_text:
            parse(text)


class ScenesVideoOracle:
    """The oracle of `bpgo.scenes.video.oracle`; no arm trains on it."""

    Settings = VideoOracleSettings

    def __init__(self, settings: VideoOracleSettings, device: str = "cpu") -> None:
        self.settings = settings
        self.device = device

    def __call__(self, samples: Samples) -> Tensor:
        """Judge clips [B, 5, 3, 32, 32]: [B] float32 in [0, 1].

        Raises:
            UserError: a text outside the caption grammar, or no first frames where the output is
                agreement with them.
            ValueError: shapes that do not fit.
        """
        from bpgo.scenes.video.oracle import judge
        from bpgo.scenes.video.render import check_clips

        check_clips(samples.pixels.shape, len(samples))
        given = samples.first_frames if self.settings.output == "first_frame" else None
        if self.settings.output == "first_frame" and given is None:
            raise UserError(
                f"reward '{self.settings.title}' compares clips with the given first frame, and the"
                " prompts have none: it can judge image to video only"
            )
        judged = judge(samples.pixels, samples.texts, given, _contents(samples.pixels))
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
