"""One key says which set of weights an experiment runs on; what is in the set counts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from test_jobs import digests
from untrained_world import untrained_weights

from bpgo.config import resolve as config
from bpgo.config.settings import Settings
from bpgo.errors import UserError
from bpgo.rewards import load_rewards
from bpgo.scenes.weights import WEIGHTS
from bpgo.storage.digests import write_digests

FOLDER = config.default_configfile().parent


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained_weights(tmp_path_factory.mktemp("world") / "seed_3")


@pytest.fixture
def own(weights: Path, tmp_path: Path) -> Path:
    """A copy, to be spoilt."""
    return Path(shutil.copytree(weights, tmp_path / "seed_3"))


def resolved(folder: Path | None, **changes: Any) -> Settings:
    values = config.read_yaml(config.default_configfile())
    if folder is not None:
        values["world_weights"] = str(folder)
    return config.resolve({**values, **changes}, FOLDER, "my.yaml")


def refusal(folder: Path, **changes: Any) -> str:
    with pytest.raises(UserError) as caught:
        resolved(folder, **changes)
    message = str(caught.value)
    assert len(message.splitlines()) == 1, message
    assert message.startswith("my.yaml: world_weights: ")
    return message


def rewrite(folder: Path, file: str) -> None:
    """Other weights at the same place, the folder whole again."""
    path = folder / file
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    write_digests(folder)


def test_the_default_is_the_shipped_set() -> None:
    settings = resolved(None)
    assert settings.world_weights == "bpgo/scenes/weights"
    assert settings.model.path == "bpgo/scenes/weights/policy"
    named = resolved(Path("bpgo/scenes/weights"))
    assert named == settings


def test_policy_and_rewards_come_from_the_folder(weights: Path, tmp_path: Path) -> None:
    settings = resolved(weights)
    assert settings.world_weights == str(weights)
    assert settings.model.path == f"{weights}/policy"
    pools = [name for name in settings.rewards if name.startswith("scenes_")]
    assert len(pools) == 6
    shipped = load_rewards(resolved(None).rewards, pools)
    for name, reward in load_rewards(settings.rewards, pools).items():
        ours, theirs = (each.model.text.words.weight for each in (reward, shipped[name]))
        assert not (ours == theirs).all()
    config.save_resolved(settings, tmp_path / "resolved.yaml")
    assert config.load_resolved(tmp_path / "resolved.yaml") == settings
    assert f"world_weights: {weights}\n" in (tmp_path / "resolved.yaml").read_text()


EVERYTHING = {"draw", "calibrate", "judge", "train", "sample", "sample base", "score", "score base"}


@pytest.mark.parametrize(
    ("file", "heard"),
    [
        ("policy/transformer/diffusion_pytorch_model.safetensors", EVERYTHING),
        (
            "rewards/ambiguous/pool_a.safetensors",
            {"calibrate", "judge", "train", "sample", "score", "score base"},
        ),
        ("rewards/ambiguous/pool_b.safetensors", {"judge", "score", "score base"}),
        ("rewards/clear/pool_a.safetensors", set()),
        ("rewards/hidden/pool_a.safetensors", set()),
    ],
)
def test_jobs_hear_of_other_weights_at_the_same_place(
    file: str, heard: set[str], own: Path
) -> None:
    before = digests(resolved(own))
    rewrite(own, file)
    after = digests(resolved(own))
    assert {name for name in before if before[name] != after[name]} == heard


def test_a_replicate_trains_anew(weights: Path) -> None:
    before, after = digests(resolved(None)), digests(resolved(weights))
    assert {name for name in before if before[name] != after[name]} == EVERYTHING


def test_a_folder_that_is_missing_or_no_folder_of_weights(tmp_path: Path) -> None:
    assert "there is no folder 'results/pretrain/seed_77'" in refusal(
        Path("results/pretrain/seed_77")
    )
    assert "pretrain_seed=N" in refusal(tmp_path / "none")
    assert "is no folder of weights" in refusal(tmp_path)
    (tmp_path / "digests.json").write_text("[1, 2")
    assert "digests.json: cannot be read" in refusal(tmp_path)
    (tmp_path / "digests.json").write_text("[1, 2]")
    assert "must hold a digest for each file" in refusal(tmp_path)


def test_a_foreign_folder(tmp_path: Path) -> None:
    (tmp_path / "video").mkdir()
    (tmp_path / "video" / "model.safetensors").write_bytes(b"other")
    write_digests(tmp_path)
    assert "has no base policy (policy/)" in refusal(tmp_path)


def test_half_a_folder(own: Path) -> None:
    file = own / "rewards/hidden/pool_c.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:100])
    assert "pool_c.safetensors: file is corrupted" in refusal(own)
    file.unlink()
    assert "pool_c.safetensors: file is missing" in refusal(own)


def test_a_reward_that_the_folder_lacks(own: Path) -> None:
    shutil.rmtree(own / "rewards" / "clear")
    write_digests(own)
    message = refusal(own)
    assert "has no rewards/clear/pool_a.safetensors, which the reward 'scenes_clear_a'" in message


def test_a_reward_that_the_shipped_set_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before any job."""
    listed = json.loads((WEIGHTS / "digests.json").read_text())
    del listed["rewards/clear/pool_b.safetensors"]
    monkeypatch.setattr("bpgo.config.world_weights.read_digests", lambda _folder: listed)
    with pytest.raises(UserError, match=r"has no rewards/clear/pool_b\.safetensors, which"):
        resolved(None)


def test_it_is_for_the_embedded_image_world(weights: Path) -> None:
    for name in ("scenes_t2v", "flux_t2i"):
        values = config.read_yaml(FOLDER / f"{name}.yaml")
        values = {k: v for k, v in values.items() if k not in config.WORKFLOW_OPTIONS}
        with pytest.raises(UserError, match="is for the embedded image world, but the model"):
            config.resolve({**values, "world_weights": str(weights)}, FOLDER, "my.yaml")


def test_a_reward_file_does_not_say_where_its_weights_lie(weights: Path) -> None:
    changed = {"rewards": {"scenes_clear_b": {"weights": str(weights)}}}
    assert "leave weights out of 'scenes_clear_b'" in refusal(weights, overrides=changed)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"world": "cleer"}, "'cleer' is not allowed"),
        ({"member": 5}, "5 is not allowed"),
        ({"member": 2}, "world 'clear' has no member 2 of pool b"),
    ],
)
def test_models_that_no_world_has(change: dict[str, Any], message: str, weights: Path) -> None:
    with pytest.raises(UserError, match=message):
        resolved(weights, overrides={"rewards": {"scenes_clear_b": change}})


def test_every_world_resolves_with_a_whole_set(weights: Path) -> None:
    values = config.read_yaml(config.default_configfile())
    entry = values["experiments"]["clear"]
    for world in ("ambiguous", "control", "hidden", "clear"):
        judges = [f"scenes_{world}_b", f"scenes_{world}_c", "oracle"]
        changed = {**entry, "training_reward": f"scenes_{world}_a", "judges": judges}
        settings = resolved(weights, experiments={**values["experiments"], "clear": changed})
        assert settings.rewards[f"scenes_{world}_b"].weights == str(weights)
