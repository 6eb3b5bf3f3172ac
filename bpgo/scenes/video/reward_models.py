"""Reward models of the video world: three architectures that score a clip for a text.

Clips are [B, 5, 3, 32, 32] in [0, 1], texts token ids [B, 14]; higher is better. Pool a is a CLIP
over tubelets (it trains policies, the part VideoCLIP-XL plays in the paper), pool b a CNN over
frames and their differences and pool c a fusion transformer (they judge, as VideoAlign and
Qwen3-VL-Embedding do). Text towers, blocks and losses are the image world's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bpgo.scenes.image.reward_models import WIDTH, Block, ClipReward, Fusion, RewardModel
from bpgo.scenes.video.render import CLIP_SIZE, FRAMES
from bpgo.scenes.video.text import CLIP_WORDS
from bpgo.scenes.worlds import Pool


class TubeletTower(nn.Module):
    """Clips to features [B, N, D] of tubelets (all frames, ``patch`` x ``patch`` pixels)."""

    def __init__(self, patch: int, depth: int) -> None:
        super().__init__()
        size = (FRAMES, patch, patch)
        self.tubelets = nn.Conv3d(3, WIDTH, size, size)
        self.positions = nn.Parameter(0.1 * torch.randn((CLIP_SIZE // patch) ** 2, WIDTH))
        self.blocks = nn.ModuleList(Block() for _ in range(depth))

    def forward(self, clips: Tensor) -> Tensor:
        x = self.tubelets(clips.transpose(1, 2) * 4 - 1).flatten(2).transpose(1, 2)
        x = x + self.positions
        for block in self.blocks:
            x = block(x)
        return x


class TubeletClip(ClipReward):
    """Pool a: tubelets of 5 frames and 8 pixels, a three-block transformer."""

    def __init__(self) -> None:
        super().__init__(text_depth=2, words=CLIP_WORDS)
        self.tower = TubeletTower(patch=8, depth=3)
        self.image_out = nn.Linear(WIDTH, WIDTH)

    def image_features(self, images: Tensor) -> Tensor:
        return self.image_out(self.tower(images).mean(1))


class DifferenceCnn(ClipReward):
    """Pool b: convolutions over a middle frame and two differences; its head sees every place."""

    def __init__(self) -> None:
        super().__init__(text_depth=2, words=CLIP_WORDS)
        self.convolutions = nn.Sequential(
            nn.Conv2d(12, 32, 4, 2, 1),
            nn.GELU(),
            nn.GroupNorm(4, 32),
            nn.Conv2d(32, 64, 4, 2, 1),
            nn.GELU(),
            nn.GroupNorm(4, 64),
            nn.Conv2d(64, 64, 4, 4),
            nn.GELU(),
        )
        self.image_out = nn.Sequential(nn.Linear(256, 96), nn.GELU(), nn.Linear(96, WIDTH))

    def image_features(self, images: Tensor) -> Tensor:
        first, middle, last = (images[:, frame] for frame in (0, FRAMES // 2, FRAMES - 1))
        seen = torch.cat(
            (middle * 4 - 1, images.mean(1) * 4 - 1, 4 * (middle - first), 4 * (last - middle)), 1
        )
        return self.image_out(self.convolutions(seen).flatten(1))


class ClipFusion(Fusion):
    """Pool c: one token a cell, and words, in one transformer."""

    def __init__(self) -> None:
        super().__init__(CLIP_WORDS)

    def build_tower(self) -> nn.Module:
        return TubeletTower(patch=16, depth=1)


CLIP_ARCHITECTURES: dict[Pool, type[RewardModel]] = {
    "a": TubeletClip,
    "b": DifferenceCnn,
    "c": ClipFusion,
}


def build_reward(pool: Pool) -> RewardModel:
    """Build an untrained reward model; weights come from torch's global stream."""
    return CLIP_ARCHITECTURES[pool]()
