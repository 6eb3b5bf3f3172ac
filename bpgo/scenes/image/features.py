"""What the oracle reads in an image, as numbers: how alike two images are to the embedded world."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from bpgo.config.published import FeatureSettings
from bpgo.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from bpgo.records import Samples


class ScenesFeatureSettings(FeatureSettings):
    """Keys of the features `scenes`."""

    kind: Literal["scenes"] = "scenes"


class ScenesFeatures:
    """Per cell how far it holds an object of each shape, colour and size; and how blank it all is.

    So two images are alike where the same object lies in the same cell.
    """

    Settings = ScenesFeatureSettings

    def __init__(self, settings: ScenesFeatureSettings, device: str = "cpu") -> None:
        self.settings = settings
        self.device = device

    def __call__(self, samples: Samples) -> Tensor:
        """Features [B, 91] in [0, 1] of images [B, 3, 24, 24].

        Raises:
            UserError: images of another size.
        """
        import torch

        from bpgo.scenes.image.oracle import CLEAR, HALF_DRAWN, parse_images

        try:
            parsed = parse_images(samples.pixels)
        except ValueError as error:
            raise UserError(f"features '{self.settings.title}': {error}") from None
        best = parsed.value_residual.amin(-1)
        held = ((parsed.empty_residual - best) / CLEAR).sigmoid() * 0.5 ** (best / HALF_DRAWN)
        fits = torch.exp(-(parsed.value_residual - best[..., None]) / CLEAR)
        blank = 1 - held.amax(dim=1, keepdim=True)
        return torch.cat([(held[..., None] * fits).flatten(1), blank], dim=1)


FEATURES = ScenesFeatures
