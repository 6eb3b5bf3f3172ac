"""The two towers of VideoCLIP-XL, with open_clip's transformer blocks (same tensors as published).

B clips, F frames, N = patches of a frame, L tokens, W the width, D numbers in an embedding.
"""

from __future__ import annotations

import math

import torch
from open_clip.transformer import QuickGELU, Transformer
from torch import Tensor, nn

HEAD_WIDTH = 64  # 1024 numbers in 16 heads, 768 in 12
OWN_POSITIONS = 20  # Long-CLIP keeps CLIP's first 20 and stretches the rest


def _transformer(width: int, layers: int) -> Transformer:
    return Transformer(width, layers, max(1, width // HEAD_WIDTH), act_layer=QuickGELU)


class VideoTower(nn.Module):
    """A ViT over the patches of all frames together (ViCLIP): clips [B, F, 3, H, W] to [B, D].

    A patch has its place's and its frame's position; there is one class token for the clip.
    """

    def __init__(self, size: dict[str, int]) -> None:
        super().__init__()
        width, patch = size["width"], size["patch"]
        self.frames, self.size = size["frames"], math.isqrt(size["cells"]) * patch
        self.conv1 = nn.Conv3d(3, width, (1, patch, patch), (1, patch, patch), bias=False)
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.positions = nn.Parameter(torch.empty(size["cells"] + 1, width))
        self.moments = nn.Parameter(torch.empty(1, size["frames"], width))
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.transformer = _transformer(width, size["layers"])
        self.projection = nn.Parameter(torch.empty(width, size["embedding"]))

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalised pixels [B, F, 3, H, W] to embeddings [B, D] of any length."""
        cells = self.conv1(pixels.transpose(1, 2)).flatten(3).permute(0, 2, 3, 1)  # [B, F, N, W]
        cells = cells + self.positions[1:] + self.moments[:, :, None]
        clip = (self.class_embedding + self.positions[0]).expand(len(pixels), 1, -1)
        tokens = self.ln_pre(torch.cat([clip, cells.flatten(1, 2)], dim=1))
        read: Tensor = self.ln_post(self.transformer(tokens)[:, 0])
        return read @ self.projection


class TextTower(nn.Module):
    """Long-CLIP's text encoder: tokens [B, L] to [B, D], read at the end-of-text token."""

    def __init__(self, size: dict[str, int]) -> None:
        super().__init__()
        width, length = size["text_width"], size["text_length"]
        self.token_embedding = nn.Embedding(size["words"], width)
        self.positions = nn.Parameter(torch.empty(length, width))
        self.late_positions = nn.Parameter(torch.empty(length, width))
        self.transformer = _transformer(width, size["text_layers"])
        self.ln_final = nn.LayerNorm(width)
        self.projection = nn.Parameter(torch.empty(width, size["embedding"]))

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens [B, L], padded with 0 after the end of the text, to embeddings [B, D]."""
        own, late = self.positions[:OWN_POSITIONS], self.late_positions[OWN_POSITIONS:]
        read = self.token_embedding(tokens) + torch.cat([own, late])
        later = torch.full((tokens.shape[1],) * 2, -math.inf, device=tokens.device).triu(1)
        read = self.ln_final(self.transformer(read, attn_mask=later))
        end = tokens.argmax(dim=1)  # the end of the text has the largest number of all
        return read[torch.arange(len(tokens), device=tokens.device), end] @ self.projection
