"""Rewards of the embedded video world, learned from simulated annotators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from bpgo.config.settings import RewardSettings

if TYPE_CHECKING:
    from torch import Tensor


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

    def __call__(self, images: Tensor, texts: list[str]) -> Tensor:
        """Score clips [B, 5, 3, 32, 32] in [0, 1] for B texts: [B] float32, higher is better.

        Raises:
            ValueError: another shape, or another number of texts.
        """
        import torch

        from bpgo.scenes.video.render import check_clips
        from bpgo.scenes.video.text import encode_texts

        check_clips(images.shape, len(texts))
        ids = encode_texts(texts).to(self.device)
        with torch.no_grad():
            return self.model.score(images.to(self.device, torch.float32), ids)


REWARD = ScenesVideoPreference
