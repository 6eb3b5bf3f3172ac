"""CLIP score: how well OpenAI's CLIP finds that image and prompt belong together.

There are three habits. The plain cosine (0.2 to 0.4) is what DanceGRPO and MixGRPO report and is
the default here. torchmetrics takes 100 * max(cosine, 0); CLIPScore itself (Hessel et al., arXiv
2104.08718) 2.5 * max(cosine, 0), with the ViT-B-32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from bpgo.config.fields import Positive
from bpgo.rewards.shared.published import CosineReward, PublishedRewardSettings
from bpgo.rewards.shared.tokens import CLIP_TOKENS

if TYPE_CHECKING:
    from torch import Tensor

    from bpgo.records import Samples


class ClipScoreSettings(PublishedRewardSettings):
    """Keys of a `clip_score` reward; `path` is the CLIP's folder, with its tokenizer."""

    kind: Literal["clip_score"] = "clip_score"
    scale: Positive = 1.0  # of the cosine; 1: itself; 100: torchmetrics; 2.5: CLIPScore
    clip_at_zero: bool = False  # no score below 0, as in torchmetrics and CLIPScore

    def longest_prompt(self) -> int:
        """CLIP's longest text."""
        return CLIP_TOKENS

    def count_tokens(self, texts: list[str]) -> list[int]:
        """See `RewardSettings.count_tokens`."""
        from bpgo.rewards.shared.tokens import transformers_tokens

        what = f"reward '{self.title}'"
        return transformers_tokens(self.path, self.revision, what, texts)


class ClipScore(CosineReward):
    """A published CLIP in transformers.

    Raises:
        UserError: there is no such checkpoint, or it is another model's.
    """

    Settings = ClipScoreSettings

    def __init__(self, settings: ClipScoreSettings, device: str = "cpu") -> None:
        super().__init__(settings, device)
        self.settings = settings
        from bpgo.rewards.shared.clip_model import ClipModel

        place = (settings.path, settings.revision)
        self.clip = ClipModel(*place, place, device, f"reward '{settings.title}'")

    def embed_images(self, images: Tensor) -> Tensor:
        """Images [B, 3, H, W] in [0, 1] to embeddings [B, D]."""
        from bpgo.rewards.shared.preprocess import clip_pixels

        return self.clip.embed_images(clip_pixels(images, self.clip.image_size))

    def embed_text(self, text: str) -> Tensor:
        """One text to its embedding [1, D]."""
        return self.clip.embed_text(text)

    def score(self, samples: Samples) -> Tensor:
        """As the call itself, for at most `batch_size` samples on the reward's device."""
        cosine = super().score(samples)
        if self.settings.clip_at_zero:
            cosine = cosine.clamp(min=0)
        return cosine * self.settings.scale


REWARD = ClipScore
