"""Reward models of the embedded world: three architectures that score an image for a text.

Images are RGB [B, 3, 24, 24] in [0, 1], texts token ids [B, 12]; a score is a real number, higher
is better. Pool a is a ViT-CLIP (it trains policies, the part HPSv2 plays in the paper), pool b a
CNN-CLIP and pool c a fusion transformer (they judge, as PickScore and ImageReward do). The further
members of pool a's ensemble are ViT-CLIPs of other sizes.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bpgo.scenes.image.render import IMAGE_SIZE
from bpgo.scenes.text import PAD, WORDS, WordTokens, encode_texts
from bpgo.scenes.worlds import MEMBERS, TRAINING_POOL, Pool

WIDTH = 64
HEADS = 4


class Block(nn.Module):
    """Pre-norm transformer block on [B, N, D]; ``mask`` [B, N] is true for tokens to attend to."""

    def __init__(self, width: int = WIDTH, expansion: int = 2) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.up, self.down = (
            nn.Linear(width, expansion * width),
            nn.Linear(expansion * width, width),
        )

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        batch, length, width = x.shape
        qkv = self.qkv(self.norm_1(x)).reshape(batch, length, 3, HEADS, width // HEADS)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        attend = None if mask is None else mask[:, None, None, :]
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=attend)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(F.gelu(self.up(self.norm_2(x))))


class TextTower(nn.Module):
    """Token ids [B, L] to token features [B, L, D] (and their mask).

    Without a gradient each distinct text is computed once: samples of a group have the same.
    """

    def __init__(self, depth: int, words: WordTokens = WORDS, width: int = WIDTH) -> None:
        super().__init__()
        self.words = nn.Embedding(len(words), width)
        self.positions = nn.Parameter(0.1 * torch.randn(words.length, width))
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        nn.init.normal_(self.words.weight, std=0.3)

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        if torch.is_grad_enabled():  # sums over rows would round in another order
            return self._features(ids)
        distinct, place = ids.unique(dim=0, return_inverse=True)
        x, mask = self._features(distinct)
        return x[place], mask[place]

    def _features(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        mask = ids != PAD
        x = self.words(ids) + self.positions
        for block in self.blocks:
            x = block(x, mask)
        return x, mask


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean of [B, N, D] over the tokens that the mask [B, N] keeps."""
    weight = mask[:, :, None].to(x.dtype)
    return (x * weight).sum(1) / weight.sum(1)


class PatchTower(nn.Module):
    """Images to patch features [B, N, D], with learned positions."""

    def __init__(self, patch: int, depth: int, width: int = WIDTH) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.positions = nn.Parameter(0.1 * torch.randn((IMAGE_SIZE // patch) ** 2, width))
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))

    def forward(self, images: Tensor) -> Tensor:
        x = self.patches(images * 4 - 1).flatten(2).transpose(1, 2) + self.positions
        for block in self.blocks:
            x = block(x)
        return x


class RewardModel(nn.Module):
    """What the three have in common."""

    negatives: ClassVar[int] = 0
    """How many wrong texts an image is compared with in training; 0: all of the batch."""

    def score(self, images: Tensor, ids: Tensor) -> Tensor:
        """Score images [B, 3, 24, 24] for token ids [B, 12]: [B]."""
        raise NotImplementedError

    def contrast(self, images: Tensor, ids: Tensor) -> Tensor:
        """InfoNCE loss (arXiv 1807.03748) of B pairs that belong together, [B]."""
        raise NotImplementedError


class ClipReward(RewardModel):
    """Two towers; the score is a learned scale times the cosine of their features."""

    def __init__(self, text_depth: int, words: WordTokens = WORDS, width: int = WIDTH) -> None:
        super().__init__()
        self.text = TextTower(text_depth, words, width)
        self.text_out = nn.Linear(width, width)
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))

    def image_features(self, images: Tensor) -> Tensor:
        """Unnormalised image features [B, D]."""
        raise NotImplementedError

    def features(self, images: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Unit image and text features, each [B, D]."""
        text = self.text_out(masked_mean(*self.text(ids)))
        return F.normalize(self.image_features(images), dim=-1), F.normalize(text, dim=-1)

    def score(self, images: Tensor, ids: Tensor) -> Tensor:
        image, text = self.features(images, ids)
        return self.log_scale.exp() * (image * text).sum(-1)

    def contrast(self, images: Tensor, ids: Tensor) -> Tensor:
        image, text = self.features(images, ids)
        logits = self.log_scale.exp() * image @ text.T
        target = torch.arange(len(logits))
        losses = [F.cross_entropy(side, target, reduction="none") for side in (logits, logits.T)]
        return (losses[0] + losses[1]) / 2


class VitClip(ClipReward):
    """Pool a: patches of 4 pixels, a three-block transformer; members of other sizes."""

    def __init__(self, patch: int = 4, depth: int = 3, width: int = WIDTH) -> None:
        super().__init__(text_depth=2, width=width)
        self.tower = PatchTower(patch, depth, width)
        self.image_out = nn.Linear(width, width)

    def image_features(self, images: Tensor) -> Tensor:
        return self.image_out(self.tower(images).mean(1))


class CnnClip(ClipReward):
    """Pool b: four strided convolutions; its head sees every place, so positions count."""

    def __init__(self) -> None:
        super().__init__(text_depth=2)
        self.convolutions = nn.Sequential(
            nn.Conv2d(3, 32, 4, 2, 1),
            nn.GELU(),
            nn.GroupNorm(4, 32),
            nn.Conv2d(32, 64, 3, 1, 1),
            nn.GELU(),
            nn.GroupNorm(4, 64),
            nn.Conv2d(64, 64, 4, 4),
            nn.GELU(),
        )
        self.image_out = nn.Sequential(nn.Linear(576, 96), nn.GELU(), nn.Linear(96, WIDTH))

    def image_features(self, images: Tensor) -> Tensor:
        return self.image_out(self.convolutions(images * 4 - 1).flatten(1))


class Fusion(RewardModel):
    """Pool c: image cells and words in one transformer, the score a mean over both."""

    negatives = 3

    def __init__(self, words: WordTokens = WORDS) -> None:
        super().__init__()
        self.text = TextTower(depth=1, words=words)
        self.tower = self.build_tower()
        self.blocks = nn.ModuleList(Block() for _ in range(3))
        self.out = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 1))

    def build_tower(self) -> nn.Module:
        """What makes features [B, N, D] of images."""
        return PatchTower(patch=8, depth=1)

    def score(self, images: Tensor, ids: Tensor) -> Tensor:
        return self.fuse(self.tower(images), *self.text(ids))

    def fuse(self, image: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        """Score image features [B, N, D] for text features [B, L, D] with their mask: [B]."""
        x = torch.cat((text, image), 1)
        mask = torch.cat((mask, mask.new_ones(image.shape[:2])), 1)
        for block in self.blocks:
            x = block(x, mask)
        return self.out(masked_mean(x, mask)).squeeze(-1)

    def contrast(self, images: Tensor, ids: Tensor) -> Tensor:
        # All pairs of a batch would be a forward each: compare with the neighbours' texts only.
        image = self.tower(images)
        text, mask = self.text(ids)
        logits = torch.stack(
            [self.fuse(image, text.roll(k, 0), mask.roll(k, 0)) for k in range(self.negatives + 1)],
            dim=1,
        )
        target = torch.zeros(len(logits), dtype=torch.long)
        return F.cross_entropy(logits, target, reduction="none")


ARCHITECTURES: dict[Pool, type[RewardModel]] = {"a": VitClip, "b": CnnClip, "c": Fusion}
ENSEMBLE: dict[int, dict[str, int]] = {
    2: {"patch": 6, "depth": 3, "width": 64},
    3: {"patch": 8, "depth": 4, "width": 64},
    4: {"patch": 4, "depth": 2, "width": 48},
}
"""Sizes of the training pool's further members."""


def build_reward(pool: Pool, member: int = 1) -> RewardModel:
    """Build an untrained reward model; weights come from torch's global stream.

    Raises:
        ValueError: the pool has no such member.
    """
    if member == 1:
        return ARCHITECTURES[pool]()
    if pool != TRAINING_POOL or not 1 < member <= MEMBERS:
        raise ValueError(f"pool {pool} has no member {member}")
    return VitClip(**ENSEMBLE[member])


@torch.no_grad()
def score_images(model: RewardModel, images: Tensor, texts: list[str]) -> Tensor:
    """Score images [B, 3, 24, 24] in [0, 1]: [B]."""
    ids = encode_texts(texts)
    parts = [model.score(i, t) for i, t in zip(images.split(256), ids.split(256), strict=True)]
    return torch.cat(parts)
