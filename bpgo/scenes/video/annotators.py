"""Simulated annotators of clips, with taste: who labels the preference pairs of the video world.

The image world's annotators (`bpgo.scenes.annotators`: the formula and its constants) of
a world with taste: judged by alignment where a caption is specified, by taste where it is open.
A clip has features more that people may like: how much moves in it, and where to. In image to
video, where a first frame shows the looks, these are what samples of one prompt differ in.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bpgo.scenes.annotators import (
    TASTE_SCALE,
    foreground_features,
    preference,
    share_of_ambiguity,
)
from bpgo.scenes.image.render import BACKGROUND
from bpgo.scenes.video.captions import parse
from bpgo.scenes.video.oracle import judge
from bpgo.scenes.worlds import Pool

# Foreground colour along red - cyan, green - blue and brightness, centre x and y, liveliness, and
# drift x and y.
_FEATURE_MEAN = torch.tensor([0.088, 0.084, 0.838, 0.0, 0.0, 0.249, 0.0, 0.0])
_FEATURE_STD = torch.tensor([0.326, 0.269, 0.146, 0.414, 0.413, 0.116, 0.138, 0.138])
"""Of scenes of the train split, both tasks (scene_clips(2048, 0, task)); a test compares them."""

_DIRECTIONS: dict[Pool, Tensor] = {
    # red, high in the frame, lively, moving to the right
    "a": torch.tensor([1.0, 0.0, 0.0, 0.0, -1.0, 1.0, 1.0, 0.0]),
    # green rather than blue, at the right, moving up
    "b": torch.tensor([0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, -1.0]),
    # bright, low in the frame, lively
    "c": torch.tensor([0.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 0.0]),
}
"""Orthogonal, so that no pool's taste is another's."""


def taste_features(clips: Tensor) -> Tensor:
    """Foreground colour on three axes, its centre (x, y), liveliness and drift (x, y): [B, 8].

    Drift is how far the foreground's centre goes from first to last frame, in halves of a frame.

    Liveliness is the mean absolute difference of neighbouring frames over the foreground's mean
    absolute difference from the background: the number and size of objects do not enter.

    Args:
        clips: [B, F, 3, H, W] in [0, 1].
    """
    looks = foreground_features(clips.flatten(0, 1)).unflatten(0, clips.shape[:2])
    drift = looks[:, -1, 3:] - looks[:, 0, 3:]
    change = (clips[:, 1:] - clips[:, :-1]).abs().mean((1, 2, 3, 4))
    ground = (clips - torch.tensor(BACKGROUND)[:, None, None]).abs().mean((1, 2, 3, 4))
    return torch.cat((looks.mean(1), (change / (ground + 0.005))[:, None], drift), 1)


def taste(clips: Tensor, pool: Pool) -> Tensor:
    """How much a pool likes clips [B, 5, 3, 32, 32], whatever was asked for: sd TASTE_SCALE."""
    direction = _DIRECTIONS[pool] / _DIRECTIONS[pool].norm()
    return TASTE_SCALE * ((taste_features(clips) - _FEATURE_MEAN) / _FEATURE_STD) @ direction


def taste_share(texts: Sequence[str]) -> Tensor:
    """Share d of taste in the judgement of each caption, [B] in [0, 1]."""
    return share_of_ambiguity(torch.tensor([parse(text).ambiguity for text in texts]))


def preference_probability(
    first: Tensor, second: Tensor, texts: Sequence[str], pool: Pool
) -> Tensor:
    """Probability that a pool prefers ``first`` to ``second``, both [B, 5, 3, 32, 32]: [B]."""
    alignment = judge(first, texts).graded - judge(second, texts).graded
    return preference(taste_share(texts), alignment, taste(first, pool) - taste(second, pool))
