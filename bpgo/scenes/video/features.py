"""What the oracle reads in a clip, as numbers: how alike two clips are to the embedded world."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from bpgo.config.published import FeatureSettings
from bpgo.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from bpgo.records import Samples


class ScenesVideoFeatureSettings(FeatureSettings):
    """Keys of the features `scenes_video`."""

    kind: Literal["scenes_video"] = "scenes_video"

    @property
    def media(self) -> tuple[Literal["image", "video"], ...]:
        """What they read."""
        return ("video",)


class ScenesVideoFeatures:
    """Per cell 1 for the shape, colour, size and motion that it holds; 1 more for a blank clip."""

    Settings = ScenesVideoFeatureSettings

    def __init__(self, settings: ScenesVideoFeatureSettings, device: str = "cpu") -> None:
        self.settings = settings
        self.device = device

    def __call__(self, samples: Samples) -> Tensor:
        """Features [B, 65], 0 or 1, of clips [B, 5, 3, 32, 32].

        Raises:
            UserError: clips of another size.
        """
        import torch
        from torch.nn import functional as F

        from bpgo.scenes.captions import COLOURS, SHAPES, SIZES
        from bpgo.scenes.video.captions import MOTIONS
        from bpgo.scenes.video.oracle import parse_clips
        from bpgo.scenes.video.render import check_clips

        try:
            check_clips(samples.pixels.shape, len(samples))
        except ValueError as error:
            raise UserError(f"features '{self.settings.title}': {error}") from None
        parsed = parse_clips(samples.pixels)
        present = parsed.present
        sizes = {"shape": SHAPES, "colour": COLOURS, "size": SIZES, "motion": (*MOTIONS, "none")}
        cells = [
            F.one_hot(getattr(parsed, name).clamp(min=0), len(values)) * present[..., None]
            for name, values in sizes.items()
        ]
        blank = ~present.any(dim=1, keepdim=True)
        return torch.cat([torch.cat(cells, dim=2).flatten(1), blank], dim=1).float()


FEATURES = ScenesVideoFeatures
