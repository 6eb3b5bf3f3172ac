"""LAION's aesthetic predictor: how much people like an image, whatever the prompt (1 to 10).

A small network without nonlinearities on the normalised image embedding of OpenAI's CLIP ViT-L-14
(christophschuhmann/improved-aesthetic-predictor, `simple_inference.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from bpgo.config.fields import Revision
from bpgo.rewards.shared.published import PublishedReward, PublishedRewardSettings, Sha256
from bpgo.storage import hub

if TYPE_CHECKING:
    from torch import Tensor, nn

    from bpgo.records import Samples

WIDTHS = (1024, 128, 64, 16, 1)


class AestheticSettings(PublishedRewardSettings):
    """Keys of an `aesthetic` reward; `path` is the file of the small network."""

    kind: Literal["aesthetic"] = "aesthetic"
    sha256: Sha256 | None = None  # of that file
    clip: str  # folder or repository of the CLIP
    clip_revision: Revision | None = None  # its commit on the hub

    @property
    def reads_text(self) -> bool:
        """The prompt does not count."""
        return False


class Aesthetic(PublishedReward):
    """CLIP in transformers, and the published network on its image embeddings.

    Raises:
        UserError: one of the two is missing, or another model's.
    """

    Settings = AestheticSettings

    def __init__(self, settings: AestheticSettings, device: str = "cpu") -> None:
        super().__init__(settings, device)
        self.settings = settings
        what = f"reward '{settings.title}'"
        path = hub.file(settings.path, settings.revision, what, settings.sha256)
        from bpgo.rewards.shared.checkpoints import load_weights, read_state_dict
        from bpgo.rewards.shared.clip_model import ClipModel

        state = {
            name.removeprefix("layers."): value
            for name, value in read_state_dict(path, what).items()
        }
        self.clip = ClipModel(settings.clip, settings.clip_revision, None, device, what)
        self.head = aesthetic_head(self.clip.model.config.projection_dim)
        load_weights(self.head, state, path, what)
        self.head.float().to(device).eval().requires_grad_(False)

    def score(self, samples: Samples) -> Tensor:
        """As the call itself, for at most `batch_size` samples on the reward's device."""
        from torch.nn import functional as F

        from bpgo.rewards.shared.preprocess import clip_pixels

        with self.autocast():
            found = self.clip.embed_images(
                clip_pixels(samples.pixels, self.clip.image_size, crop_rounds=True)
            )
        scores: Tensor = self.head(F.normalize(found.float(), dim=1)).squeeze(1)
        return scores


def aesthetic_head(width: int) -> nn.Sequential:
    """The network on embeddings [B, width], to be filled; dropout stands where it is published."""
    from torch import nn

    first, *rest = (
        nn.Linear(before, after)
        for before, after in zip((width, *WIDTHS[:-1]), WIDTHS, strict=True)
    )
    dropped = [nn.Dropout(0.2), rest[0], nn.Dropout(0.2), rest[1], nn.Dropout(0.1)]
    return nn.Sequential(first, *dropped, *rest[2:])


REWARD = Aesthetic
