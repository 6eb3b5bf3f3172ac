"""Every training stage of the image world runs for a few steps; equal seeds, equal weights."""

from __future__ import annotations

import pytest
import torch

from bpgo.errors import UserError
from bpgo.scenes.annotators import (
    FLIP_RATE,
    TASTE_SCALE,
    contrast_weight,
    preference_probability,
    sample_labels,
    taste,
    taste_share,
)
from bpgo.scenes.image.codec import scene_images
from bpgo.scenes.image.policy import load_policy, pack, sample_images, unpack
from bpgo.scenes.image.reward_models import build_reward
from bpgo.scenes.image.reward_training import (
    artefact_pairs,
    bootstrap_rows,
    label,
    mutated_pairs,
    preference_pairs,
)
from bpgo.scenes.pretrain import join, pretrain_all, pretrain_stage
from bpgo.scenes.text import PAD, build_tokenizer, encode_texts
from bpgo.scenes.weights import load_reward, policy_folder, save_reward, seed_of
from bpgo.scenes.worlds import WORLDS, world_of
from bpgo.storage.digests import read_digests, verify

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
    for world in WORLDS.values():
        for pool, member in world.models():
            model = load_reward(world.name, pool, weights=pretrained, member=member)
            assert model.score(images, encode_texts(TEXTS)).shape == (2,)
    assert len(list(pretrained.glob("rewards/*/*"))) == 4 * 3 + 2 * 3
    names = {path.name for path in pretrained.iterdir()}
    assert names == {"policy", "rewards", "digests.json", "world.json"}
    assert seed_of(pretrained) == 0


def test_stages_side_by_side_are_one_call(pretrained, tmp_path):
    """And so equal seeds give equal weights."""
    pretrain_stage(tmp_path / "first", "first", steps=2)
    stages = ["policy", "control"]
    for stage in stages:
        pretrain_stage(tmp_path / stage, stage, tmp_path / "first", steps=2)
    join([tmp_path / stage for stage in stages], tmp_path / "joined")
    whole, joined = (read_digests(folder) for folder in (pretrained, tmp_path / "joined"))
    others = ("rewards/ambiguous", "rewards/hidden", "rewards/clear")
    assert joined == {name: each for name, each in whole.items() if not name.startswith(others)}


def test_another_seed_is_another_world(pretrained, tmp_path):
    pretrain_stage(tmp_path / "first", "first", steps=1, seed=3)
    pretrain_stage(tmp_path / "control", "control", tmp_path / "first", steps=1, seed=3)
    assert seed_of(tmp_path / "control") == 3
    for pool in ("a", "b", "c"):
        ours, theirs = (
            load_reward("control", pool, weights=folder).text.words.weight
            for folder in (pretrained, tmp_path / "control")
        )
        assert not torch.equal(ours, theirs)
    with pytest.raises(UserError, match=r"world\.json: its seed is 3, but 0 is wanted"):
        pretrain_stage(tmp_path / "clear", "clear", tmp_path / "first", steps=1)
    with pytest.raises(UserError, match=r"world\.json: its seed is 3, but 0 is wanted"):
        join([pretrained, tmp_path / "control"], tmp_path / "both")
    assert not (tmp_path / "both").exists()


@pytest.mark.parametrize(
    ("stage", "seed", "message"),
    [
        ("controll", 0, "--stage: 'controll' is unknown. Did you mean 'control'?"),
        ("images", -1, "seed: -1 is not allowed: it must be from 0 to 2147483647"),
        ("first", 2**31, "seed: 2147483648 is not allowed"),
        ("control", 0, "--first: the stage 'control' needs the folder"),
    ],
)
def test_a_stage_that_cannot_be_made(stage, seed, message, tmp_path):
    with pytest.raises(UserError) as caught:
        pretrain_stage(tmp_path / "made", stage, steps=1, seed=seed)
    assert str(caught.value).startswith(message)
    assert not list(tmp_path.iterdir())


def test_only_weights_are_replaced(pretrained, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    join([pretrained], mine)  # an empty folder
    before = read_digests(mine)
    join([pretrained], mine)
    assert read_digests(mine) == before
    (mine / "digests.json").unlink()
    for make in (
        lambda: pretrain_all(mine, steps=1),
        lambda: pretrain_stage(mine, "first", steps=1),
        lambda: join([pretrained], mine),
    ):
        with pytest.raises(UserError, match=r"--output: '.*mine' exists and holds no weights"):
            make()
    assert (mine / "world.json").is_file()


def test_pools_are_asked_about_pairs_of_their_own(pretrained):
    policy = load_policy(policy_folder(pretrained))
    pairs = {pool: preference_pairs(policy, pool, 0, 0.01) for pool in ("a", "b", "c")}
    assert len({len(each) for each in pairs.values()}) == 1
    for one, other in (("a", "b"), ("a", "c"), ("b", "c")):
        same = (pairs[one].first == pairs[other].first).flatten(1).all(1)
        assert float(same.float().mean()) < 0.05
    again = preference_pairs(policy, "a", 0, 0.01)
    assert torch.equal(again.second, pairs["a"].second)
    assert again.texts == pairs["a"].texts
    other = preference_pairs(policy, "a", 1, 0.01)
    assert other.texts != pairs["a"].texts


def test_worlds_of_equal_taste_share_their_labels():
    """So they differ by the contrastive weight alone."""
    pairs = mutated_pairs(400, 0)
    labels = {name: label(pairs, world, "a", 0) for name, world in WORLDS.items()}
    assert torch.equal(labels["control"], labels["clear"])
    assert torch.equal(labels["hidden"], labels["ambiguous"])
    assert not torch.equal(labels["hidden"], labels["clear"])


def test_members_learn_from_bootstrap_samples():
    assert torch.equal(bootstrap_rows(1000, "a", 1, 0), torch.arange(1000))
    for member in (2, 3, 4):
        rows = bootstrap_rows(1000, "a", member, 0)
        assert len(rows.unique()) / 1000 == pytest.approx(0.632, abs=0.05)
        assert torch.equal(rows, bootstrap_rows(1000, "a", member, 0))
    sizes = {
        sum(p.numel() for p in build_reward("a", member).parameters()) for member in range(1, 5)
    }
    assert len(sizes) == 4
    with pytest.raises(ValueError, match="pool b has no member 2"):
        build_reward("b", 2)


def test_saved_rewards_are_rounded_to_half_precision(tmp_path):
    model = build_reward("a").eval()
    images, texts = scene_images(64, 5)
    before = model.score(images, encode_texts(texts))
    rounded = build_reward("a").eval()
    rounded.load_state_dict({k: v.half().float() for k, v in model.state_dict().items()})
    save_reward(model, "clear", "a", tmp_path)
    loaded = load_reward("clear", "a", weights=tmp_path)
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    after = loaded.score(images, encode_texts(texts))
    assert torch.equal(after, rounded.score(images, encode_texts(texts)))
    assert 0 < (after - before).abs().max() < 0.05
    file = tmp_path / "rewards/clear/pool_a.safetensors"
    assert file.stat().st_size < 2.2 * sum(p.numel() for p in model.parameters())


def test_weights_in_full_precision_still_load(tmp_path):
    from safetensors.torch import save_file

    model = build_reward("c").eval()
    file = tmp_path / "rewards/clear/pool_c.safetensors"
    file.parent.mkdir(parents=True)
    save_file(model.state_dict(), file)
    loaded = load_reward("clear", "c", weights=tmp_path)
    assert all(torch.equal(loaded.state_dict()[k], v) for k, v in model.state_dict().items())


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
    texts = ["a small red circle", "a shape"]
    shares = {name: taste_share(texts, world).tolist() for name, world in WORLDS.items()}
    assert shares == {"ambiguous": [0, 1], "control": [0, 0], "hidden": [0, 1], "clear": [0, 0]}
    weights = {name: contrast_weight(texts, world).tolist() for name, world in WORLDS.items()}
    assert weights == {"ambiguous": [1, 0], "control": [1, 0], "hidden": [1, 0], "clear": [1, 1]}
    with pytest.raises(UserError, match=r"world: 'cleer' is unknown\. Did you mean 'clear'"):
        world_of("cleer")
    pairs = mutated_pairs(400, 0)
    both = [
        preference_probability(x, y, pairs.texts, WORLDS["ambiguous"], "a")
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
