"""The colours of patches, as features: which parts of an image differ from the rest. No weights.

For the embedded worlds, whose images are shapes on a background: it knows nothing of captions and
tastes, and is no oracle.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from bpgo.config.fields import Count
from bpgo.config.published import PatchFeatureSettings
from bpgo.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from bpgo.records import Samples


class PatchesSettings(PatchFeatureSettings):
    """Keys of the features `patches`."""

    kind: Literal["patches"] = "patches"
    size: Count  # of a patch, in pixels; what is left over at the right and below is not seen


class Patches:
    """The pixels of each patch."""

    Settings = PatchesSettings

    def __init__(self, settings: PatchesSettings, device: str = "cpu") -> None:
        self.settings, self.device = settings, device

    def __call__(self, samples: Samples) -> Tensor:
        """Features [B, D] of images [B, 3, H, W] or clips [B, F, 3, H, W]: all patches."""
        return self.patches(samples).flatten(1)

    def patches(self, samples: Samples) -> Tensor:
        """Features [B, F, h, w, D] of each patch; F is 1 for images.

        Raises:
            UserError: samples smaller than a patch.
        """
        side, pixels = self.settings.size, samples.pixels.float()
        frames = pixels[:, None] if pixels.ndim == 4 else pixels
        if min(frames.shape[-2:]) < side:
            raise UserError(
                f"features '{self.settings.title}': size: {side} is larger than the samples,"
                f" {frames.shape[-2]} by {frames.shape[-1]}"
            )
        cut = frames.unfold(3, side, side).unfold(4, side, side)  # [B, F, 3, h, w, size, size]
        return cut.permute(0, 1, 3, 4, 2, 5, 6).flatten(4)


FEATURES = Patches
