"""What Wan's image-to-video models get of a first frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bpgo.config.model import ModelSettings
from bpgo.errors import UserError, reading
from bpgo.models.parts import load_model
from bpgo.prompts.first_frames import read_first_frames
from bpgo.storage.images import read_image

CLIP_VISION = "transformers:CLIPVisionModel"
AT_A_TIME = 16  # images in one forward pass of the image encoder


class Codec:
    """An `AutoencoderKLWan` with the mean and the standard deviation of its latents' channels.

    Raises:
        UserError: if its configuration, in the folder `place`, has not one of each per channel.
    """

    def __init__(self, vae: Any, place: Path) -> None:
        self.vae, self.channels = vae, int(vae.config.z_dim)
        for name in ("latents_mean", "latents_std"):
            if (found := len(vae.config[name])) != self.channels:
                raise UserError(
                    f"{place}: '{name}' has {found} numbers, but latents have {self.channels}"
                    " channels (z_dim)"
                )

    def _row(self, values: list[float], like: Tensor) -> Tensor:
        return torch.tensor(values, device=like.device, dtype=like.dtype).view(1, -1, 1, 1, 1)

    def unscaled(self, latents: Tensor) -> Tensor:
        """The codec's own latents `[B, C, F', H', W']`."""
        config = self.vae.config
        mean, deviation = (
            self._row(values, latents) for values in (config.latents_mean, config.latents_std)
        )
        return latents * deviation + mean

    @torch.no_grad()
    def encoded(self, clip: Tensor) -> Tensor:
        """Clips `[B, 3, F, H, W]` in [-1, 1] to scaled latents `[B, C, F', H', W']`, float32."""
        place = next(self.vae.parameters())
        found = self.vae.encode(clip.to(place.device, place.dtype)).latent_dist.mode().float()
        config = self.vae.config
        mean, deviation = (
            self._row(values, found) for values in (config.latents_mean, config.latents_std)
        )
        scaled: Tensor = (found - mean) / deviation
        return scaled


def channels_last(codec: nn.Module) -> None:
    """Lay out a codec's convolution weights so that a CPU runs them twice as fast."""
    for layer in codec.modules():
        if isinstance(layer, nn.Conv3d):
            layer.weight.data = layer.weight.data.contiguous(memory_format=torch.channels_last_3d)
        elif isinstance(layer, nn.Conv2d):
            layer.weight.data = layer.weight.data.contiguous(memory_format=torch.channels_last)


def first_frame_conditions(
    codec: Codec, paths: list[Path], settings: ModelSettings, latents_alone: bool
) -> Tensor:
    """What stands beside or in the latents, `[N, ...]` float32 on the host; each file read once.

    With `latents_alone` the first frame's latents, `[N, C, 1, H', W']` (Wan2.2-TI2V-5B). Else, as
    channels: a mask of the frames that are given, 4 for each latent frame, and the latents of a
    clip that is mid-grey after its first frame (0 in [-1, 1]), `[N, 4 + C, F', H', W']`.

    Raises:
        UserError: if a file cannot be read as an image.
    """
    made: dict[Path, Tensor] = {}
    for path in paths:
        if path not in made:
            found = read_first_frames([path], settings)
            assert found is not None
            clip = (2 * found - 1)[:, :, None]
            if not latents_alone:
                later = clip.new_zeros(1, 3, settings.frames - 1, *clip.shape[3:])
                clip = torch.cat([clip, later], dim=2)
            latents = codec.encoded(clip).cpu()
            made[path] = latents if latents_alone else _with_mask(codec, latents)
    return torch.cat([made[path] for path in paths])


def _with_mask(codec: Codec, latents: Tensor) -> Tensor:
    """The mask's channels first: ones for the first latent frame, all of which is given."""
    channels = int(codec.vae.config.scale_factor_temporal)
    mask = torch.zeros_like(latents[:, :1]).repeat(1, channels, 1, 1, 1)
    mask[:, :, 0] = 1
    return torch.cat([mask, latents], dim=1)


@torch.no_grad()
def image_tokens(folder: Path, paths: list[Path], device: torch.device) -> Tensor:
    """The image encoder's view of first frames, `[N, L', D'']` float32 on the host.

    The last layer but one of a CLIP vision model in float32, as the pipeline's documentation
    advises. It is freed before this returns.

    Raises:
        UserError: if the encoder cannot be loaded, or a file cannot be read as an image.
    """
    from transformers import AutoImageProcessor

    place = folder / "image_processor"
    with reading(f"{place}: cannot be loaded as an image processor"):
        processor = AutoImageProcessor.from_pretrained(place, local_files_only=True)
    encoder = load_model(CLIP_VISION, folder, "image_encoder", torch.float32).to(device)
    files = list(dict.fromkeys(paths))
    made: dict[Path, Tensor] = {}
    for start in range(0, len(files), AT_A_TIME):
        part = files[start : start + AT_A_TIME]
        pixels = processor(images=[read_image(path) for path in part], return_tensors="pt")
        output = encoder(**pixels.to(device), output_hidden_states=True)
        made |= dict(zip(part, output.hidden_states[-2].cpu(), strict=True))
    del encoder, output
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return torch.stack([made[path] for path in paths])
