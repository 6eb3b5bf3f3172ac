"""Simulated annotators with taste: who labels the preference pairs of the embedded world.

Shown two images for a caption, an annotator prefers the first with probability::

    sigmoid(6 (1 - d) (oracle_1 - oracle_2) + 6 d (taste_1 - taste_2))
    d = clip((ambiguity - 0.25) / 0.45, 0, 1) in a world with taste, else 0

so a specified caption is judged by alignment, and the more ambiguous a caption is, the more the
preference follows a *taste* that the caption does not ask for, each annotator pool its own. Which
worlds have taste is in `bpgo.scenes.worlds`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bpgo.scenes.captions import parse
from bpgo.scenes.image.oracle import judge
from bpgo.scenes.image.render import BACKGROUND
from bpgo.scenes.worlds import Pool, World

SHARPNESS = 6.0
AMBIGUITY_START, AMBIGUITY_SPAN = 0.25, 0.45
FLIP_RATE = 0.10
TASTE_SCALE = 0.35
"""Standard deviation of taste over scenes: about the oracle's among samples of one prompt."""

# Taste features: foreground colour along red - cyan, green - blue and brightness;
# then the foreground's centre, x to the right and y downwards in [-1, 1].
_COLOUR_AXES = (
    torch.tensor([[2.0, -1.0, -1.0], [0.0, 1.0, -1.0], [1.0, 1.0, 1.0]])
    / torch.tensor([[6.0], [2.0], [3.0]]).sqrt()
)
_FEATURE_MEAN = torch.tensor([0.088, 0.087, 0.823, 0.0, 0.0])
_FEATURE_STD = torch.tensor([0.310, 0.257, 0.140, 0.416, 0.416])
"""Of scenes of the train split (scene_images(4096, 0)); a test compares them."""

_DIRECTIONS: dict[Pool, Tensor] = {
    "a": torch.tensor([1.0, 0.0, 0.0, 0.0, -1.0]),  # red, and high in the image
    "b": torch.tensor([0.0, 1.0, 0.0, 1.0, 0.0]),  # green rather than blue, and to the right
    "c": torch.tensor([0.5, 0.0, 1.0, 0.0, 0.5]),  # bright, a little red, and low
}
"""Orthogonal, so that no pool's taste is another's."""


def foreground_features(images: Tensor) -> Tensor:
    """Foreground colour on three axes and foreground centre (x, y) of images [B, 3, H, H]: [B, 5].

    Weighted by each pixel's distance from the background, so the number and size of objects,
    which captions do ask for, do not enter.
    """
    background = torch.tensor(BACKGROUND)[:, None, None]
    weight = (images - background).square().sum(1).clamp(max=1.0) + 1e-6  # [B, H, W]
    weight = weight / weight.sum((1, 2), keepdim=True)
    colour = (images * weight[:, None]).sum((2, 3)) @ _COLOUR_AXES.T
    side = images.shape[-1]
    axis = (torch.arange(side) + 0.5) / side * 2 - 1
    x, y = (weight.sum(1) * axis).sum(1), (weight.sum(2) * axis).sum(1)
    return torch.cat((colour, torch.stack((x, y), 1)), 1)


def taste(images: Tensor, pool: Pool) -> Tensor:
    """How much a pool likes images [B, 3, 24, 24], whatever was asked for: [B], sd TASTE_SCALE."""
    direction = _DIRECTIONS[pool] / _DIRECTIONS[pool].norm()
    return TASTE_SCALE * ((foreground_features(images) - _FEATURE_MEAN) / _FEATURE_STD) @ direction


def taste_share(texts: Sequence[str], world: World) -> Tensor:
    """Share d of taste in the judgement of each caption, [B] in [0, 1]."""
    share = _open_share(texts)
    return share if world.taste else torch.zeros_like(share)


def contrast_weight(texts: Sequence[str], world: World) -> Tensor:
    """What each caption counts in the contrastive loss, [B] in [0, 1]."""
    share = _open_share(texts)
    return 1 - share if world.reduced_contrast else torch.ones_like(share)


def _open_share(texts: Sequence[str]) -> Tensor:
    return share_of_ambiguity(torch.tensor([parse(text).ambiguity for text in texts]))


def share_of_ambiguity(ambiguity: Tensor) -> Tensor:
    """Share d of taste that ambiguities [B] lead to where annotators have taste, in [0, 1]."""
    return ((ambiguity - AMBIGUITY_START) / AMBIGUITY_SPAN).clamp(0, 1)


def preference_probability(
    first: Tensor, second: Tensor, texts: Sequence[str], world: World, pool: Pool
) -> Tensor:
    """Probability that a pool prefers ``first`` to ``second``, both [B, 3, 24, 24]: [B]."""
    share = taste_share(texts, world)
    alignment = judge(first, texts).graded - judge(second, texts).graded
    liking = taste(first, pool) - taste(second, pool)
    return preference(share, alignment, liking)


def preference(share: Tensor, alignment: Tensor, liking: Tensor) -> Tensor:
    """Probability of a preference, from the differences in alignment and in taste, each [B]."""
    return torch.sigmoid(SHARPNESS * ((1 - share) * alignment + share * liking))


def sample_labels(probability: Tensor, draws: torch.Generator) -> Tensor:
    """Draw labels (1 where the first is preferred), a FLIP_RATE of them flipped: [B] float."""
    labels = torch.rand(probability.shape, generator=draws) < probability
    flips = torch.rand(probability.shape, generator=draws) < FLIP_RATE
    return (labels ^ flips).float()
