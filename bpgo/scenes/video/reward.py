"""Rewards of the embedded video world, learned from simulated annotators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from bpgo.config.settings import RewardSettings

if TYPE_CHECKING:
    from torch import Tensor

    from bpgo.records import Samples


class VideoPreferenceSettings(RewardSettings):
    """Keys of a `scenes_video_preference` reward."""

    kind: Literal["scenes_video_preference"] = "scenes_video_preference"
    pool: Literal["a", "b", "c"]  # a: CLIP of tubelets, b: CNN of differences, c: fusion

    @property
    def media(self) -> Literal["image", "video"]:
        """It scores clips."""
        return "video"


class ScenesVideoPreference:
    """The clip reward model of one annotator pool, from the shipped weights.

    Raises:
        UserError: the weights are missing or corrupted.
    """

    Settings = VideoPreferenceSettings

    def __init__(self, settings: VideoPreferenceSettings, device: str = "cpu") -> None:
        from bpgo.scenes.weights import load_clip_reward

        self.settings = settings
        self.device = device
        self.model = load_clip_reward(settings.pool, device)

    def __call__(self, samples: Samples) -> Tensor:
        """Score clips [B, 5, 3, 32, 32]: [B] float32, higher is better.

        Raises:
            ValueError: another shape.
        """
        import torch

        from bpgo.scenes.video.render import check_clips
        from bpgo.scenes.video.text import encode_texts

        check_clips(samples.pixels.shape, len(samples))
        ids = encode_texts(samples.texts).to(self.device)
        with torch.no_grad():
            return self.model.score(samples.pixels.to(self.device, torch.float32), ids)


REWARD = ScenesVideoPreference
