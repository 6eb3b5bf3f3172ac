"""An image reward over the frames of a clip: the mean of its scores.

The frames are evenly spaced and include the first and the last one. A clip with fewer frames than
`frames` is scored on each of its frames once. It sees no motion: a cheap stand-in for a video
reward.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from bpgo.config.fields import Count, Name
from bpgo.config.settings import RewardSettings
from bpgo.records import Samples
from bpgo.rewards.shared.published import check_media

if TYPE_CHECKING:
    from torch import Tensor

    from bpgo.interfaces import Reward


class FrameMeanSettings(RewardSettings):
    """Keys of a `frame_mean`; the inner reward runs in its environment."""

    kind: Literal["frame_mean"] = "frame_mean"
    reward: Name  # the reward file of the image reward, such as hpsv21
    frames: Count = 4  # how many of each clip, evenly spaced

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

    def __call__(self, samples: Samples) -> Tensor:
        """Score clips: [B] float32, higher is better; the inner reward sees no first frames.

        Raises:
            UserError: images are given instead of clips.
        """
        check_media(self.settings, samples)
        chosen = evenly_spaced(samples.pixels.shape[1], self.settings.frames)
        frames = samples.pixels[:, chosen].flatten(0, 1)
        scores = self.inner(Samples(frames, [text for text in samples.texts for _ in chosen]))
        return scores.view(len(samples), len(chosen)).mean(dim=1)


def evenly_spaced(total: int, wanted: int) -> list[int]:
    """At most `wanted` of `total` frames, evenly spaced from the first to the last."""
    count = min(total, wanted)
    if count == 1:
        return [(total - 1) // 2]
    return [round(k * (total - 1) / (count - 1)) for k in range(count)]


REWARD = FrameMean
