"""Decode samples and score them, some at a time: a batch of clips is larger than its latents."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from bpgo.config.settings import ModelSettings
from bpgo.core.rollout import chunks

# Numbers of decoded samples that are held at a time, 1 GiB: 85 images of 1024 x 1024, 26 clips of
# 33 frames of 240 x 416.
HELD = 2**28


def decoded_shape(model: ModelSettings) -> tuple[int, ...]:
    """The shape of one decoded sample: an image `(3, H, W)` or a clip `(F, 3, H, W)`."""
    image = (3, model.resolution, model.columns)
    return image if model.makes == "image" else (model.frames, *image)


@torch.no_grad()
def score_latents(
    latents: Tensor,
    decode: Callable[[Tensor], Tensor],
    score: Callable[[Tensor, slice], dict[str, Tensor]],
    shape: tuple[int, ...],
) -> dict[str, Tensor]:
    """What `score` says of the samples of `latents` `[B, ...]`, `[B]` by name.

    Args:
        latents: B samples at noise level 0.
        decode: from latents to images or clips in [0, 1].
        score: from some decoded samples, and which rows they are, to values by name.
        shape: of one decoded sample; it says how many are decoded at a time.
    """
    size = max(1, HELD // math.prod(shape))
    found = [score(decode(latents[rows]), rows) for rows in chunks(len(latents), size)]
    return {name: torch.cat([part[name] for part in found]) for name in found[0]}
