"""The shipped video weights: small, loadable by the pipelines' adapter, and able to move things."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bpgo.config import resolve as config
from bpgo.config.model import ModelSettings
from bpgo.core.rollout import initial_noise, sample
from bpgo.models.wan import WanPolicy
from bpgo.scenes.video.captions import sample_captions, specified_captions
from bpgo.scenes.video.oracle import judge
from bpgo.scenes.video.render import render_batch, sample_scene
from bpgo.scenes.weights import WEIGHTS, load_clip_reward
from bpgo.scenes.worlds import POOLS
from bpgo.seeding import numpy_generator
from bpgo.storage.digests import verify

COUNT = 96


def clips_of(texts: list[str]) -> Tensor:
    """What the text-to-video policy makes, by the sampler that judges policies."""
    file = config.default_configfile().parent / "models" / "scenes_t2v.yaml"
    policy = WanPolicy(ModelSettings.model_validate(config.read_yaml(file)), "full")
    names = [(f"p{row}", 0) for row in range(len(texts))]
    noise = initial_noise(policy.latent_shape, 1, "evaluation", names)
    return torch.cat([*sample(policy, policy.encode_prompts(texts), noise, policy.sigmas(8))])


def test_the_video_weights_take_less_than_10_megabytes() -> None:
    verify(WEIGHTS)
    files = [file for file in (WEIGHTS / "video").rglob("*") if file.is_file()]
    assert 1e6 < sum(file.stat().st_size for file in files) < 10e6


def test_the_right_motion_in_two_of_five_specified_clips() -> None:
    """All that move as the caption says, on captions that the policy never saw."""
    texts = [caption.text for caption in specified_captions(COUNT, 1, "held_out", "t2v")]
    judged = judge(clips_of(texts), texts)
    assert float((judged.motion == 1).float().mean()) >= 0.4
    other = judge(clips_of(texts), texts[1:] + texts[:1])
    assert judged.soft.mean() > other.soft.mean() + 0.2


@pytest.mark.parametrize("pool", POOLS)
def test_a_reward_prefers_the_caption_that_fits(pool: str) -> None:
    from bpgo.scenes.video.text import encode_texts

    draws = numpy_generator(5, "shipped clip rewards")
    captions = sample_captions(COUNT, 5, "held_out", "t2v")
    clips = torch.from_numpy(render_batch([sample_scene(each, draws) for each in captions]))
    texts = [caption.text for caption in captions]
    model = load_clip_reward(pool)  # type: ignore[arg-type]
    with torch.no_grad():
        fits = model.score(clips, encode_texts(texts))
        other = model.score(clips, encode_texts(texts[1:] + texts[:1]))
    assert float((fits > other).float().mean()) > 0.65  # open captions fit other clips too
