"""PickScore, learned from users' choices (Kirstain et al., arXiv 2305.01569; PickScore_v1).

The model card's score is `exp(logit_scale) * cosine`, about 20, because the scale is about 100.
The paper of BPGO reports 0.22 to 0.23: the same divided by 100.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from bpgo.config.fields import Positive, Revision
from bpgo.rewards.shared.published import CosineReward, PublishedRewardSettings
from bpgo.rewards.shared.tokens import CLIP_TOKENS

if TYPE_CHECKING:
    from torch import Tensor

    from bpgo.records import Samples


class PickScoreSettings(PublishedRewardSettings):
    """Keys of a `pickscore` reward; `path` is the CLIP's folder."""

    kind: Literal["pickscore"] = "pickscore"
    processor: str  # folder or repository of the tokenizer: the model card takes LAION's ViT-H-14
    processor_revision: Revision | None = None  # its commit on the hub
    divisor: Positive = 100.0  # 100: the paper's numbers; 1: the model card's; 26: Flow-GRPO's

    def longest_prompt(self) -> int:
        """CLIP's longest text."""
        return CLIP_TOKENS

    def count_tokens(self, texts: list[str]) -> list[int]:
        """See `RewardSettings.count_tokens`."""
        from bpgo.rewards.shared.tokens import transformers_tokens

        what = f"reward '{self.title}'"
        return transformers_tokens(self.processor, self.processor_revision, what, texts)


class PickScore(CosineReward):
    """A CLIP ViT-H-14 with PickScore's weights, in transformers.

    Raises:
        UserError: there is no such checkpoint, or it is another model's.
    """

    Settings = PickScoreSettings

    def __init__(self, settings: PickScoreSettings, device: str = "cpu") -> None:
        super().__init__(settings, device)
        self.settings = settings
        from bpgo.rewards.shared.clip_model import ClipModel

        self.clip = ClipModel(
            settings.path,
            settings.revision,
            (settings.processor, settings.processor_revision),
            device,
            f"reward '{settings.title}'",
        )
        self.scale = self.clip.model.logit_scale.exp() / settings.divisor

    def embed_images(self, images: Tensor) -> Tensor:
        """Images [B, 3, H, W] in [0, 1] to embeddings [B, D]."""
        from bpgo.rewards.shared.preprocess import clip_pixels

        return self.clip.embed_images(clip_pixels(images, self.clip.image_size))

    def embed_text(self, text: str) -> Tensor:
        """One text to its embedding [1, D]."""
        return self.clip.embed_text(text)

    def score(self, samples: Samples) -> Tensor:
        """As the call itself, for at most `batch_size` samples on the reward's device."""
        return super().score(samples) * self.scale


REWARD = PickScore
