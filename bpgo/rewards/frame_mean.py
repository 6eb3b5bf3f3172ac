"""An image reward over the frames of a clip: the mean of its scores.

The frames are evenly spaced and include the first and the last one. A clip with fewer frames than
`frames` is scored on each of its frames once. It sees no motion: a cheap stand-in for a video
reward.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from bpgo.config.settings import Count, Name, RewardSettings
from bpgo.rewards.shared.published import check_media

if TYPE_CHECKING:
    from torch import Tensor

    from bpgo.interfaces import Reward


class FrameMeanSettings(RewardSettings):
    """Keys of a `frame_mean`; the inner reward runs in its environment."""

    kind: Literal["frame_mean"] = "frame_mean"
    reward: Name  # the reward file of the image reward, such as hpsv21
    frames: Count = 4  # of each clip

    @property
    def media(self) -> Literal["image", "video"]:
        """It scores clips [B, F, 3, H, W]."""
        return "video"

    def inner_names(self) -> list[str]:
        """The image reward."""
        return [self.reward]


class FrameMean:
    """The mean over frames, from an image reward that is loaded already (see `load_rewards`)."""

    Settings = FrameMeanSettings

    def __init__(self, settings: FrameMeanSettings, inner: Reward) -> None:
        self.settings, self.inner = settings, inner
        self.reads_text = getattr(inner, "reads_text", True)

    def __call__(self, images: Tensor, texts: list[str]) -> Tensor:
        """Score clips [B, F, 3, H, W] in [0, 1] for B texts: [B] float32, higher is better.

        Raises:
            UserError: images are given instead of clips.
            ValueError: if there are not as many texts as clips.
        """
        check_media(self.settings, images)
        if len(texts) != len(images):
            raise ValueError(f"{len(images)} clips but {len(texts)} texts")
        chosen = evenly_spaced(images.shape[1], self.settings.frames)
        frames = images[:, chosen].flatten(0, 1)
        scores = self.inner(frames, [text for text in texts for _ in chosen])
        return scores.view(len(images), len(chosen)).mean(dim=1)


def evenly_spaced(total: int, wanted: int) -> list[int]:
    """At most `wanted` of `total` frames, evenly spaced from the first to the last."""
    count = min(total, wanted)
    if count == 1:
        return [(total - 1) // 2]
    return [round(k * (total - 1) / (count - 1)) for k in range(count)]


REWARD = FrameMean
