"""The taste of clips' annotators: standardised, each pool's own, and of motions too."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bpgo.scenes.annotators import TASTE_SCALE
from bpgo.scenes.video.annotators import preference_probability, taste, taste_features
from bpgo.scenes.video.codec import scene_clips
from bpgo.scenes.video.render import MovingObject, render_batch
from bpgo.scenes.worlds import POOLS

CIRCLE = MovingObject("circle", "red", "small", "still", 0, 0, 5, 5)
MOTIONS = ("left", "right", "up", "down", "still")


def clips_of(*motions):
    scenes = [(replace(CIRCLE, motion=motion),) for motion in motions]
    return torch.from_numpy(render_batch(scenes))


def test_taste_is_standardised_and_different_in_each_pool():
    clips = torch.cat([scene_clips(512, 3, task)[0] for task in ("t2v", "i2v")])
    tastes = torch.stack([taste(clips, pool) for pool in POOLS])
    assert tastes.mean(1).abs().max() < 0.05
    assert tastes.std(1).sub(TASTE_SCALE).abs().max() < 0.08
    assert torch.corrcoef(tastes).sub(torch.eye(3)).abs().max() < 0.35


def test_features_tell_motions_apart():
    """A circle that moves by one pixel a frame goes a quarter of half a frame."""
    features = taste_features(clips_of(*MOTIONS))
    drift = dict(zip(MOTIONS, features[:, 6:].tolist(), strict=True))
    assert drift["still"] == pytest.approx([0, 0], abs=1e-3)
    assert drift["right"] == pytest.approx([0.25, 0], abs=0.02)
    assert drift["up"] == pytest.approx([0, -0.25], abs=0.02)
    lively = dict(zip(MOTIONS, features[:, 5].tolist(), strict=True))
    assert lively["still"] == 0
    assert min(lively[name] for name in MOTIONS[:4]) > 0.1


def test_pools_like_motions_of_their_own():
    liked = {
        pool: dict(zip(MOTIONS, taste(clips_of(*MOTIONS), pool).tolist(), strict=True))
        for pool in POOLS
    }
    assert max(liked["a"], key=liked["a"].get) == "right"
    assert max(liked["b"], key=liked["b"].get) == "up"
    assert liked["c"]["still"] < min(liked["c"][name] for name in MOTIONS[:4])


def test_an_open_motion_is_judged_by_taste_and_a_stated_one_by_the_caption():
    right, left = clips_of("right"), clips_of("left")
    asked = ["the small red circle moves left"]
    assert float(preference_probability(right, left, asked, "a")) < 0.3
    assert float(preference_probability(right, left, ["the shape moves"], "a")) > 0.7
