"""What the published reward models share: settings, batches, and texts embedded only once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from bpgo.config.fields import SHA256, Count
from bpgo.config.settings import RewardSettings
from bpgo.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from bpgo.records import Samples

Sha256 = Annotated[str, Field(pattern=SHA256)]
REMEMBERED = 10_000  # texts: 40 MB of a ViT-H's embeddings


class PublishedRewardSettings(RewardSettings):
    """Keys of every reward whose weights others publish (see `bpgo.storage.hub` for `path`)."""

    path: str  # the checkpoint, or its folder: local, or a place on the hub
    # Of the forward passes, by autocast; the weights stay float32. The smaller ones save time on a
    # GPU. On tiny checkpoints float16 moves a cosine by up to 0.001, bfloat16 by up to 0.01, which
    # is as much as HPSv2 differs within a group.
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    batch_size: Count = 32  # images, or clips, in one forward pass


class PublishedVideoSettings(PublishedRewardSettings):
    """Keys of every reward of clips whose weights others publish."""

    batch_size: Count = 4  # clips in one forward pass

    @property
    def media(self) -> Literal["image", "video"]:
        """It scores clips [B, F, 3, H, W]."""
        return "video"


class PublishedReward(ABC):
    """A reward model on a device, called for any number of images, or of clips (`media`)."""

    def __init__(self, settings: PublishedRewardSettings, device: str = "cpu") -> None:
        self.published, self.device = settings, device

    @abstractmethod
    def score(self, samples: Samples) -> Tensor:
        """As the call itself, for at most `batch_size` samples on the reward's device."""

    def __call__(self, samples: Samples) -> Tensor:
        """Score images, or clips: [B] float32, higher is better.

        Raises:
            UserError: images are given to a reward of clips, or the other way round.
        """
        import torch

        check_media(self.published, samples)
        size = self.published.batch_size
        with torch.no_grad():
            scores = [
                self.score(samples[start : start + size].to(self.device))
                for start in range(0, len(samples), size)
            ]
        return torch.cat(scores).float()

    def autocast(self) -> Any:
        """Forward passes inside run in the dtype of the settings."""
        import torch

        dtype = getattr(torch, self.published.dtype)
        device = torch.device(self.device).type
        return torch.autocast(device, dtype, enabled=dtype is not torch.float32)


def check_media(settings: RewardSettings, given: Samples) -> None:
    """Images [B, 3, H, W] for a reward of images, clips [B, F, 3, H, W] for one of videos.

    Raises:
        UserError: it is the other way round.
    """
    if given.pixels.ndim == {"image": 4, "video": 5}[settings.media]:
        return
    if settings.media == "image":
        raise UserError(
            f"reward '{settings.title}' scores images, but it was given clips: take a reward of"
            " videos, or name this one in a `frame_mean`, which scores the frames of clips"
        )
    raise UserError(
        f"reward '{settings.title}' scores clips, but it was given images: it needs a model of"
        " videos (task t2v or i2v)"
    )


class CosineReward(PublishedReward):
    """A reward model that embeds images and texts, each by itself, and takes their cosine.

    A text is embedded alone, so its embedding does not depend on what else is scored with it: a
    resumed run finds the same numbers. It is remembered, because a group repeats its prompt.
    """

    def __init__(self, settings: PublishedRewardSettings, device: str = "cpu") -> None:
        super().__init__(settings, device)
        self._texts: dict[str, Tensor] = {}

    @abstractmethod
    def embed_images(self, images: Tensor) -> Tensor:
        """Images [B, 3, H, W] in [0, 1] to embeddings [B, D]."""

    @abstractmethod
    def embed_text(self, text: str) -> Tensor:
        """One text to its embedding [1, D]."""

    def score(self, samples: Samples) -> Tensor:
        """The cosines [B] of images and texts; subclasses scale them."""
        from torch.nn import functional as F

        with self.autocast():
            found = self.embed_images(samples.pixels).float()
        return F.cosine_similarity(found, self._embeddings(samples.texts), dim=1)

    def _embeddings(self, texts: list[str]) -> Tensor:
        import torch

        if len(self._texts) > REMEMBERED:
            self._texts.clear()
        for text in texts:
            if text not in self._texts:
                with self.autocast():
                    self._texts[text] = self.embed_text(text).float()
        return torch.cat([self._texts[text] for text in texts])
