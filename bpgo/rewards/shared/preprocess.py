"""From a policy's images to the pixels that published reward models were trained on.

Every function works on a batch, on the images' device, without a gradient. A reward sees what a
PNG file stores of an image, so training and scoring agree.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

# Channel means and deviations of CLIP's training images (openai/CLIP, `clip.py`).
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

PRECISION = 22  # bits of a weight in Pillow's 8-bit resampling (`Resample.c`)


def stored_levels(images: Tensor) -> Tensor:
    """Images [B, 3, H, W] in [0, 1] as the 8-bit levels of a PNG file: float32, 0 to 255."""
    return (images.detach().float() * 255).round().clamp(0, 255)


def clip_pixels(images: Tensor, size: int, crop_rounds: bool = False) -> Tensor:
    """CLIP's preprocessing: [B, 3, H, W] in [0, 1] to [B, 3, size, size], normalised.

    The shorter side becomes `size` by Pillow's bicubic filter, to the bit; then the centre is cut
    out. Where the surplus is odd, torchvision's and open_clip's crop rounds half of it to even
    (`crop_rounds`), that of transformers rounds it down.
    """
    levels = stored_levels(images)
    height, width = levels.shape[-2:]
    short = min(height, width)
    resized = pillow_resize(levels, size * height // short, size * width // short)
    return normalise(_centre(resized, size, crop_rounds) / 255)


def padded_pixels(images: Tensor, size: int, antialias: bool = True) -> Tensor:
    """HPSv2's preprocessing: the longer side becomes `size`, the rest is black.

    hpsv2 resizes the floats (`ResizeMaxSize` after `ToTensor`), so nothing is rounded between.
    Since torchvision 0.17 that filters before it makes an image smaller; `antialias=False` gives
    the numbers of older ones.

    Args:
        images: [B, 3, H, W] in [0, 1].
        size: of the answer [B, 3, size, size], normalised.
        antialias: as above.
    """
    pixels = stored_levels(images) / 255
    height, width = pixels.shape[-2:]
    scale = size / max(height, width)
    if scale != 1:
        shape = (round(height * scale), round(width * scale))
        pixels = F.interpolate(
            pixels, shape, mode="bicubic", align_corners=False, antialias=antialias
        )
    rows, columns = (size - side for side in pixels.shape[-2:])
    left, top = columns // 2, rows // 2
    return normalise(F.pad(pixels, [left, columns - left, top, rows - top]))


def normalise(pixels: Tensor) -> Tensor:
    """Pixels [B, 3, H, W] in [0, 1] with CLIP's means taken off, divided by its deviations."""
    mean, std = (pixels.new_tensor(values).view(3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
    return (pixels - mean) / std


def pillow_resize(levels: Tensor, height: int, width: int) -> Tensor:
    """`PIL.Image.resize((width, height), BICUBIC)` of levels [B, C, H, W], to the bit.

    Pillow filters the rows, rounds to 8 bits, then filters the columns. Its weights are whole
    numbers, and float64 holds their sums exactly on any device.
    """
    exact = levels.double()
    if exact.shape[-1] != width:
        exact = _rounded(exact @ _weights(exact.shape[-1], width, exact.device).T)
    if exact.shape[-2] != height:
        exact = _rounded(_weights(exact.shape[-2], height, exact.device) @ exact)
    return exact.float()


def _rounded(sums: Tensor) -> Tensor:
    return (sums / 2**PRECISION + 0.5).floor().clamp(0, 255)


@lru_cache(maxsize=16)
def _weights(given: int, wanted: int, device: torch.device) -> Tensor:
    """Pillow's bicubic weights [wanted, given], times 2 ** PRECISION (`precompute_coeffs`)."""
    scale = given / wanted
    stretch = max(scale, 1.0)
    support = 2.0 * stretch
    centre = (torch.arange(wanted, dtype=torch.float64) + 0.5)[:, None] * scale
    place = torch.arange(given, dtype=torch.float64)
    first = (centre - support + 0.5).trunc().clamp(min=0)
    after = (centre + support + 0.5).trunc().clamp(max=given)
    weight = _cubic((place - centre + 0.5) / stretch)
    weight = weight.where((place >= first) & (place < after), 0)
    weight = weight / weight.sum(dim=1, keepdim=True) * 2**PRECISION
    return ((weight.abs() + 0.5).floor() * weight.sign()).to(device)


def _cubic(x: Tensor) -> Tensor:
    """Keys' cubic with a = -0.5, as Pillow's."""
    x = x.abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = -0.5 * (((x - 5) * x + 8) * x - 4)
    return near.where(x < 1, far.where(x < 2, 0))


def _centre(pixels: Tensor, size: int, crop_rounds: bool) -> Tensor:
    top, left = (
        round((side - size) / 2) if crop_rounds else (side - size) // 2
        for side in pixels.shape[-2:]
    )
    return pixels[..., top : top + size, left : left + size]
