"""From a policy's clips to the pixels that published video rewards were trained on.

Every function works on a batch, on the clips' device, without a gradient. As in
`bpgo.rewards.shared.preprocess`, a reward sees 8-bit levels. What a video file loses by its
compression is not imitated: published rewards read files, and these clips come from the policy.

B clips, F frames.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from bpgo.rewards.shared.preprocess import stored_levels

# Channel means and deviations of ImageNet (torchvision's models).
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
PAIR = 2  # frames in one token of a Qwen-VL
MERGED = 2  # patches in one token, along height and width each
MOST_FRAMES = 768
FEWEST_FRAMES = 4
FEWEST_TOKENS = 128  # in a frame
MOST_TOKENS = 768
LARGEST_RATIO = 200  # of a frame's sides


def stepped(total: int, wanted: int) -> list[int]:
    """VideoCLIP-XL's frames: every (`total` // `wanted`)-th, from the first on.

    Where there are fewer than `wanted`, the published code fails; here the nearest ones repeat.
    """
    step = total // wanted
    return [k * step if step else k * total // wanted for k in range(wanted)]


def by_rate(total: int, given: float, wanted: float, most: int, floor: bool) -> list[int]:
    """Qwen-VL's frames: `wanted` a second of a clip of `given` a second, an even number.

    At least 4 and at most `most`, evenly spaced from the first to the last (qwen_vl_utils,
    `smart_nframes`). VideoAlign's copy rounds the number (`floor=False`), newer ones round it down.
    A clip of two or three frames gives two. A single frame is taken twice, where the published code
    fails.
    """
    if total == 1:
        return [0, 0]
    most = min(most, total) // PAIR * PAIR
    count = min(max(total / given * wanted, FEWEST_FRAMES), most)
    pairs = math.floor(count / PAIR) if floor else round(count / PAIR)
    return evenly(total, pairs * PAIR)


def evenly(total: int, wanted: int) -> list[int]:
    """`wanted` frames from the first to the last, by `torch.linspace` as in qwen_vl_utils."""
    return torch.linspace(0, total - 1, wanted).round().long().tolist()


def squashed_levels(frames: Tensor, size: int) -> Tensor:
    """Frames [N, 3, H, W] in [0, 1] as levels [N, 3, size, size], without regard to their ratio.

    What OpenCV's `resize` makes of 8-bit images by default (INTER_LINEAR): bilinear, not filtered,
    in fixed point. Its weights have 11 bits; four bits of each row's sum are dropped, then 16 of
    each product. Whole numbers below 2 ** 53, so float64 has them exactly on any device.
    """
    levels = stored_levels(frames).double()
    height, width = levels.shape[-2:]
    left, right, near, far = _neighbours(width, size, levels.device)
    rows = levels[..., left] * near + levels[..., right] * far
    above, below, near, far = _neighbours(height, size, levels.device)
    rows = (rows / 2**4).floor()
    upper = (rows[..., above, :] * near[:, None] / 2**16).floor()
    lower = (rows[..., below, :] * far[:, None] / 2**16).floor()
    return ((upper + lower + 2) / 4).floor().float()


def _neighbours(
    given: int, wanted: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of each wanted pixel, the two given ones beside it and their weights, times 2 ** 11."""
    scale = given / wanted
    place = ((torch.arange(wanted, dtype=torch.float64) + 0.5) * scale - 0.5).float()
    first = place.floor()
    share = (place - first).where((first >= 0) & (first < given - 1), 0)
    first = first.clamp(0, given - 1).long()
    second = (first + 1).clamp(max=given - 1)
    weights = [(part * 2**11).round().double() for part in (1 - share, share)]
    return first.to(device), second.to(device), weights[0].to(device), weights[1].to(device)


def imagenet_pixels(levels: Tensor) -> Tensor:
    """Levels [..., 3, H, W] normalised by ImageNet's means and deviations."""
    return normalised(levels, IMAGENET_MEAN, IMAGENET_STD)


def normalised(
    levels: Tensor, mean: tuple[float, float, float], std: tuple[float, float, float]
) -> Tensor:
    """Levels [..., 3, H, W] of 0 to 255 over 255, minus `mean`, divided by `std`."""
    centre, spread = (levels.new_tensor(values).view(3, 1, 1) for values in (mean, std))
    return (levels / 255 - centre) / spread


@dataclass(frozen=True)
class PatchGrid:
    """How a Qwen-VL cuts frames: patches of `patch` pixels, four of them in one token."""

    patch: int  # pixels
    least: int  # pixels of a frame
    most: int

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of resized frames (qwen_vl_utils, `smart_resize`).

        Multiples of a token's side, close to the ratio, between `least` and `most` pixels.

        Raises:
            ValueError: if one side is more than 200 times the other.
        """
        if max(height, width) > LARGEST_RATIO * min(height, width):
            raise ValueError(f"frames of {height} x {width} pixels are too narrow")
        side = self.patch * MERGED
        rows, columns = (max(side, round(length / side) * side) for length in (height, width))
        if rows * columns > self.most:
            shrink = math.sqrt(height * width / self.most)
            rows, columns = (
                max(side, math.floor(length / shrink / side) * side) for length in (height, width)
            )
        elif rows * columns < self.least:
            stretch = math.sqrt(self.least / (height * width))
            rows, columns = (
                math.ceil(length * stretch / side) * side for length in (height, width)
            )
        return rows, columns

    def levels(self, clips: Tensor) -> Tensor:
        """Clips [B, F, 3, H, W] in [0, 1] as levels [B, F, 3, H', W'] of whole numbers.

        torchvision's `resize` of 8-bit frames: bicubic, filtered, rounded.
        """
        size = self.size(*clips.shape[-2:])
        frames = stored_levels(clips.flatten(0, 1))
        if frames.shape[-2:] != size:
            frames = F.interpolate(
                frames, size, mode="bicubic", align_corners=False, antialias=True
            )
            frames = frames.clamp(0, 255).round()
        return frames.view(*clips.shape[:2], 3, *size)

    def patches(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised pixels [B, F, 3, H, W], F even, as rows of the vision tower.

        Returns:
            Patches [B * T * H/p * W/p, 3 * 2 * p * p], the four of a token side by side, and the
            grid [B, 3] of (T, H/p, W/p), where T = F / 2 and p is the patch.
        """
        count, frames, _, height, width = pixels.shape
        time, rows, columns = frames // PAIR, height // self.patch, width // self.patch
        cut = pixels.reshape(
            count,
            time,
            PAIR,
            3,
            rows // MERGED,
            MERGED,
            self.patch,
            columns // MERGED,
            MERGED,
            self.patch,
        )
        ordered = cut.permute(0, 1, 4, 7, 5, 8, 3, 2, 6, 9)
        grid = torch.tensor([[time, rows, columns]] * count, device=pixels.device)
        return ordered.reshape(count * time * rows * columns, -1), grid
