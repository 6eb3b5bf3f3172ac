"""The shipped weights: whole, small, as good as stated, and the premise holds where it should."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from bpgo.records import Samples
from bpgo.rewards import load_reward as load_by_settings
from bpgo.scenes.captions import sample_captions
from bpgo.scenes.image import oracle_reward as scenes_oracle
from bpgo.scenes.image import reward as scenes
from bpgo.scenes.image.codec import reconstruction_scores
from bpgo.scenes.image.oracle import judge
from bpgo.scenes.image.policy import load_policy, sample_images
from bpgo.scenes.text import encode_texts
from bpgo.scenes.weights import WEIGHTS, load_reward, policy_folder
from bpgo.storage.digests import verify

WORLDS = ("clear", "ambiguous")
GROUP = 12


@pytest.fixture(scope="module")
def policy():
    return load_policy(policy_folder())


@pytest.fixture(scope="module")
def groups(policy):
    """Groups of samples as reinforcement learning draws them, with the oracle's scores."""
    captions = sample_captions(400, 0, "evaluation")
    specified = [caption for caption in captions if caption.ambiguity < 0.4][:32]
    ambiguous = [caption for caption in captions if caption.ambiguity > 0.7][:32]
    texts = [caption.text for caption in specified + ambiguous for _ in range(GROUP)]
    draws = torch.Generator().manual_seed(0)
    images = sample_images(policy, texts, draws, noise_level=0.6)
    return images, texts, judge(images, texts).soft.reshape(-1, GROUP).numpy()


def test_digests_and_size():
    verify(WEIGHTS)
    files = [path for path in WEIGHTS.rglob("*") if path.is_file()]
    images = [path for path in files if WEIGHTS / "video" not in path.parents]
    assert 6e6 < sum(path.stat().st_size for path in images) < 12e6
    assert sum(path.stat().st_size for path in files) < 25e6
    assert max(path.stat().st_size for path in files) < 5.5e6
    assert {path.suffix for path in files} <= {".safetensors", ".json"}


def test_codec_keeps_what_the_oracle_reads(policy):
    scores = reconstruction_scores(policy.codec, 256)
    assert scores["soft"] > 0.97
    assert scores["strict"] > 0.92


def test_base_policy_is_recognisable_with_room_to_improve(policy):
    texts = [caption.text for caption in sample_captions(256, 0, "evaluation")]
    judged = judge(sample_images(policy, texts, torch.Generator().manual_seed(0)), texts)
    assert 0.15 <= judged.strict.mean() <= 0.40
    assert judged.quality.mean() > 0.95
    assert judged.artefact.mean() < 0.04


def test_samples_equal_the_diffusers_pipeline(policy):
    from diffusers import FluxPipeline

    pipeline = FluxPipeline.from_pretrained(policy_folder(), local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    texts = ["a red circle", "two things", "a small blue cross left of a large yellow square"]
    noise = torch.randn(3, 9, 32, generator=torch.Generator().manual_seed(1))
    expected = pipeline(
        texts,
        height=24,
        width=24,
        num_inference_steps=8,
        guidance_scale=1.0,
        max_sequence_length=12,
        latents=noise,
        output_type="pt",
    ).images
    ours = sample_images(policy, texts, torch.Generator().manual_seed(1))
    assert torch.allclose(ours, expected, atol=1e-5)


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("pool", ["a", "b", "c"])
def test_rewards_are_small_batched_and_deterministic(world, pool, groups):
    images, texts, _ = groups
    reward = load_by_settings(scenes.REWARD.Settings(title="t", world=world, pool=pool))
    samples = Samples(images[:60], texts[:60])
    together = reward(samples)
    assert together.shape == (60,)
    assert together.dtype == torch.float32
    assert not together.requires_grad
    assert torch.equal(together, reward(samples))
    alone = torch.cat([reward(samples[i : i + 1]) for i in range(60)])
    assert torch.allclose(together, alone, atol=1e-5)
    assert sum(p.numel() for p in load_reward(world, pool).parameters()) <= 250_000


def test_oracle_reward(groups):
    images, texts, _ = groups
    for output in ("soft", "strict"):
        reward = load_by_settings(scenes_oracle.REWARD.Settings(title="t", output=output))
        scores = reward(Samples(images, texts))
        expected = getattr(judge(images, texts), output)
        assert torch.equal(scores, expected)


def _reliability(world, pool, groups):
    """Mean within-group rank correlation of reward and oracle: specified, ambiguous captions."""
    images, texts, soft = groups
    model = load_reward(world, pool)
    rewards = model.score(images, encode_texts(texts)).reshape(-1, GROUP).numpy()
    found = [
        spearmanr(reward, truth).statistic if truth.std() > 0 else np.nan
        for reward, truth in zip(rewards, soft, strict=True)
    ]
    return np.nanmean(found[:32]), np.nanmean(found[32:])


@pytest.mark.parametrize("pool", ["a", "b", "c"])
def test_premise_holds_in_the_ambiguous_world_only(pool, groups):
    specified, ambiguous = _reliability("ambiguous", pool, groups)
    clear_specified, clear_ambiguous = _reliability("clear", pool, groups)
    assert specified > 0.2
    assert ambiguous < specified - 0.15
    assert clear_specified > 0.3
    assert clear_ambiguous > 0.3
    assert clear_ambiguous > ambiguous + 0.15
