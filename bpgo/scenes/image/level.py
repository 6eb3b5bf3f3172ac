"""A reward model whose mean does not give open captions away, though it learned less of them.

Where contrast is reduced, a model scores samples of open captions lower, and a rule that reads the
mean of a group sees it. To put its level right, what a twin scores more is added: a model that
learned from the same labels at full contrast. The sum depends on the caption's ambiguity alone, so
the order and the spread of a prompt's samples stay, and every advantage up to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from bpgo.scenes.captions import parse
from bpgo.scenes.image.reward_models import RewardModel, build_reward, score_images
from bpgo.scenes.text import WORDS
from bpgo.scenes.worlds import Pool, World

KNOTS = 9
"""Ambiguities 0, 1/8 ... 1 at which the level is stored; it is linear between them."""

CAPTIONS = 1000
"""With two samples each, what the level is measured on."""


class Levelled(RewardModel):
    """Another model's score and a level by ambiguity."""

    def __init__(self, model: RewardModel) -> None:
        super().__init__()
        self.model = model
        self.level: Tensor
        self.register_buffer("level", torch.zeros(KNOTS))

    def score(self, images: Tensor, ids: Tensor) -> Tensor:
        """As the other model's.

        Raises:
            CaptionError: a text is outside the grammar, so it has no ambiguity.
        """
        shares = _shares(WORDS.decode(ids)).to(self.level)
        return self.model.score(images, ids) + shares @ self.level

    def contrast(self, images: Tensor, ids: Tensor) -> Tensor:
        return self.model.contrast(images, ids)


def build_model(world: World, pool: Pool, member: int = 1) -> RewardModel:
    """An untrained reward model of a world, with a level where the world has one."""
    model = build_reward(pool, member)
    return Levelled(model) if world.full_level else model


def put_on_level(
    model: RewardModel, twin: RewardModel, images: Tensor, texts: list[str]
) -> Levelled:
    """The model on the level of its twin, by least squares over samples of a policy.

    Args:
        model: whose order of samples is kept.
        twin: the same model trained at full contrast.
        images: samples [N, 3, 24, 24] in [0, 1].
        texts: their captions.
    """
    missing = score_images(twin, images, texts) - score_images(model, images, texts)
    fit = torch.linalg.lstsq(_shares(texts).double(), missing.double()[:, None])
    levelled = Levelled(model)
    levelled.level.copy_(fit.solution[:, 0])
    return levelled.eval().requires_grad_(False)


def _shares(texts: Sequence[str]) -> Tensor:
    """How much each knot counts for each text, [B, KNOTS]; a row sums to 1."""
    places = torch.tensor([_ambiguity(text) for text in texts]) * (KNOTS - 1)
    return (1 - (places[:, None] - torch.arange(KNOTS)).abs()).clamp_min(0)


@lru_cache(maxsize=65536)
def _ambiguity(text: str) -> float:
    return parse(text).ambiguity
