"""DINOv2 (arXiv 2304.07193) as features of images, or of clips frame by frame. It rewards nothing.

Its class token tells images apart by what they show, and was trained without texts or tastes, so
it has no part in what a reward likes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from bpgo.config.fields import Count
from bpgo.config.published import PatchFeatureSettings
from bpgo.errors import UserError, reading

if TYPE_CHECKING:
    from torch import Tensor

    from bpgo.records import Samples

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, as its processor says


class Dinov2Settings(PatchFeatureSettings):
    """Keys of the features `dinov2`."""

    kind: Literal["dinov2"] = "dinov2"
    # The checkpoint in transformers' layout: a local folder, or a place on the hub.
    path: str
    pixels: Count = 224  # of the shorter side, then the centre; a multiple of the patch, 14
    batch_size: Count = 32  # images in one forward pass


class Dinov2:
    """A published DINOv2 in transformers.

    Raises:
        UserError: there is no such checkpoint, or it is another model's.
    """

    Settings = Dinov2Settings

    def __init__(self, settings: Dinov2Settings, device: str = "cpu") -> None:
        self.settings, self.device = settings, device
        self.model = _load(settings).to(device).eval().requires_grad_(False)

    def __call__(self, samples: Samples) -> Tensor:
        """Features [B, D] of images [B, 3, H, W] or clips [B, F, 3, H, W], float32, on the host."""
        import torch

        pixels = samples.pixels
        images = pixels.flatten(0, 1) if pixels.ndim == 5 else pixels
        size = self.settings.batch_size
        with torch.no_grad():
            parts = [
                self._embed(images[k : k + size].to(self.device)).float().cpu()
                for k in range(0, len(images), size)
            ]
        found = torch.cat(parts)
        return found.unflatten(0, pixels.shape[:2]).mean(dim=1) if pixels.ndim == 5 else found

    def patches(self, samples: Samples) -> Tensor:
        """Features [B, F, h, w, D] of the patches of whole frames; F is 1 for images.

        A frame's sides become multiples of the patch's, the shorter one nearly `pixels`.
        """
        import torch
        from torch.nn import functional as F

        pixels, patch = samples.pixels, self.model.config.patch_size
        frames = (pixels[:, None] if pixels.ndim == 4 else pixels).flatten(0, 1).float()
        scale = self.settings.pixels / min(frames.shape[-2:]) / patch
        grid = [max(1, round(length * scale)) for length in frames.shape[-2:]]
        size, parts = self.settings.batch_size, []
        for k in range(0, len(frames), size):
            given = frames[k : k + size].to(self.device)
            shape = [patch * count for count in grid]
            resized = F.interpolate(given, shape, mode="bicubic", antialias=True).clamp(0, 1)
            with torch.no_grad():
                found = self.model(pixel_values=_normalised(resized)).last_hidden_state[:, 1:]
            parts.append(found.unflatten(1, grid).float().cpu())
        return torch.cat(parts).unflatten(0, (len(pixels), -1))

    def _embed(self, images: Tensor) -> Tensor:
        from torch.nn import functional as F

        side, (height, width) = self.settings.pixels, images.shape[-2:]
        short = min(height, width)
        shape = (round(side * height / short), round(side * width / short))
        resized = F.interpolate(images.float(), shape, mode="bicubic", antialias=True).clamp(0, 1)
        top, left = ((length - side) // 2 for length in shape)
        cut = resized[..., top : top + side, left : left + side]
        found: Tensor = self.model(pixel_values=_normalised(cut)).last_hidden_state[:, 0]
        return found


def _normalised(images: Tensor) -> Tensor:
    mean, std = (images.new_tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return (images - mean) / std


def _load(settings: Dinov2Settings) -> Any:
    from transformers import Dinov2Model

    from bpgo.storage import hub
    from bpgo.storage.files import read_about

    what = f"features '{settings.title}'"
    folder = hub.folder(settings.path, settings.revision, what, ("config.json", "*.safetensors"))
    kind = read_about(folder / "config.json").get("model_type")
    if kind != "dinov2":
        raise UserError(f"{what}: {folder} is not a DINOv2: its config.json says {kind!r}")
    with reading(f"{what}: {folder} cannot be read as a DINOv2"):
        return Dinov2Model.from_pretrained(folder, local_files_only=True, use_safetensors=True)


FEATURES = Dinov2
