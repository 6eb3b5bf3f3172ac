"""Every training stage of the image world runs for a few steps; equal seeds, equal weights."""

from __future__ import annotations

import pytest
import torch

from bpgo.errors import UserError
from bpgo.scenes.annotators import (
    FLIP_RATE,
    TASTE_SCALE,
    preference_probability,
    sample_labels,
    taste,
    taste_share,
)
from bpgo.scenes.image.codec import scene_images
from bpgo.scenes.image.policy import load_policy, pack, sample_images, unpack
from bpgo.scenes.image.reward_training import artefact_pairs, mutated_pairs
from bpgo.scenes.pretrain import pretrain_all
from bpgo.scenes.text import PAD, build_tokenizer, encode_texts
from bpgo.scenes.weights import load_reward, policy_folder, verify

TEXTS = ["a red circle", "two large green crosses and a small yellow square"]


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrain") / "weights"
    pretrain_all(folder, steps=2, world="images")
    return folder


def test_whole_folder_from_nothing(pretrained):
    verify(pretrained)
    images = sample_images(
        load_policy(policy_folder(pretrained)), TEXTS, torch.Generator().manual_seed(0)
    )
    assert images.shape == (2, 3, 24, 24)
    assert images.isfinite().all()
    for world in ("clear", "ambiguous"):
        for pool in ("a", "b", "c"):
            model = load_reward(world, pool, weights=pretrained)
            assert model.score(images, encode_texts(TEXTS)).shape == (2,)
    names = {path.name for path in pretrained.iterdir()}
    assert names == {"policy", "rewards", "digests.json"}


def test_equal_seeds_equal_weights(pretrained, tmp_path):
    pretrain_all(tmp_path / "again", steps=2, world="images")
    first, second = (folder / "digests.json" for folder in (pretrained, tmp_path / "again"))
    assert first.read_text() == second.read_text()


def test_corrupted_weights_are_named(pretrained):
    file = pretrained / "rewards/clear/pool_b.safetensors"
    whole = file.read_bytes()
    try:
        file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(UserError, match=r"pool_b.*corrupted, expected sha256 .*found .*git"):
            load_reward("clear", "b", weights=pretrained)
        load_reward("clear", "a", weights=pretrained)  # the others are not concerned
        file.unlink()
        with pytest.raises(UserError, match=r"pool_b.safetensors: file is missing"):
            load_reward("clear", "b", weights=pretrained)
    finally:
        file.write_bytes(whole)
    verify(pretrained)


def test_tokenizer_agrees_with_encode_texts():
    tokenizer = build_tokenizer()
    ids = tokenizer(TEXTS, padding="max_length", max_length=12, return_tensors="pt").input_ids
    assert torch.equal(ids, encode_texts(TEXTS))
    assert ids.shape == (2, 12)
    assert int((ids[0] != PAD).sum()) == 4


def test_packing_is_the_pipelines():
    from diffusers import FluxPipeline

    latents = torch.randn(3, 8, 6, 6)
    packed = pack(latents)
    assert torch.equal(packed, FluxPipeline._pack_latents(latents, 3, 8, 6, 6))
    assert torch.equal(unpack(packed), latents)


def test_taste_is_standardised_and_different_in_each_pool():
    images, _ = scene_images(2048, 3)
    tastes = torch.stack([taste(images, pool) for pool in ("a", "b", "c")])
    assert tastes.mean(1).abs().max() < 0.05
    assert tastes.std(1).sub(TASTE_SCALE).abs().max() < 0.08
    assert torch.corrcoef(tastes).sub(torch.eye(3)).abs().max() < 0.35


def test_annotators_follow_alignment_or_taste():
    assert taste_share(["a small red circle", "a shape"], "clear").tolist() == [0, 0]
    assert taste_share(["a small red circle", "a shape"], "ambiguous").tolist() == [0, 1]
    pairs = mutated_pairs(400, 0)
    both = [
        preference_probability(x, y, pairs.texts, "ambiguous", "a")
        for x, y in ((pairs.first, pairs.second), (pairs.second, pairs.first))
    ]
    assert torch.allclose(both[0] + both[1], torch.ones(400), atol=1e-5)
    labels = sample_labels(torch.ones(20000), torch.Generator().manual_seed(0))
    assert float(labels.mean()) == pytest.approx(1 - FLIP_RATE, abs=0.01)


def test_artefacts_are_faint_but_there():
    images, texts = scene_images(64, 0)
    pairs = artefact_pairs(images, texts, 0)
    change = (pairs.first - pairs.second).square().mean((1, 2, 3)).sqrt()
    assert change.min() > 0.005
    assert change.max() < 0.35
