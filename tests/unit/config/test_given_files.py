"""Policies that were trained elsewhere: what is read of their files, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from bpgo.config import jobs
from bpgo.config.given import GivenPolicy
from bpgo.config.given_files import folder_of, with_policies
from bpgo.config.resolve import (
    WORKFLOW_OPTIONS,
    default_configfile,
    load,
    load_resolved,
    read_yaml,
    resolve,
    save_resolved,
)
from bpgo.config.runs import Run
from bpgo.config.settings import Settings
from bpgo.errors import UserError
from bpgo.steps.given_policies import loaded_with
from bpgo.steps.loading import load_policy
from bpgo.storage import hub
from bpgo.storage.files import repository_root, sha256
from bpgo.tools.planning.work import work_of

BASE = repository_root() / "bpgo" / "scenes" / "weights" / "policy" / "transformer"
LAYER = "transformer_blocks.0.attn.to_q"


def lora(rank: int = 4, layer: str = LAYER, size: int = 64) -> dict[str, torch.Tensor]:
    name = f"transformer.{layer}"
    return {
        f"{name}.lora_A.weight": torch.ones(rank, size),
        f"{name}.lora_B.weight": torch.ones(size, rank),
    }


def notes(**values: Any) -> dict[str, str]:
    """What peft's configuration says of a LoRA, as diffusers writes it into the file."""
    return {"lora_adapter_metadata": json.dumps({f"transformer.{k}": v for k, v in values.items()})}


def saved(folder: Path, tensors: dict[str, torch.Tensor], **options: Any) -> Path:
    path = folder / "their.safetensors"
    save_file(tensors, path, metadata={"format": "pt", **options})
    return path


def resolved(policies: dict[str, Any], **changes: Any) -> Settings:
    file = default_configfile()
    values = {k: v for k, v in read_yaml(file).items() if k not in WORKFLOW_OPTIONS} | changes
    return resolve(values | {"policies": policies}, file.parent, "mine.yaml")


def refused(policies: dict[str, Any]) -> str:
    with pytest.raises(UserError) as caught:
        resolved(policies)
    message = str(caught.value)
    assert "\n" not in message
    return message


def with_lora(path: Path, **more: Any) -> dict[str, Any]:
    return {"theirs": {"title": "Theirs", "lora": str(path), **more}}


def test_a_lora_says_its_rank_alpha_and_layers(tmp_path: Path) -> None:
    path = saved(tmp_path, lora(4), **notes(lora_alpha=6, r=4))
    policy = resolved(with_lora(path)).policies["theirs"]
    assert policy.adapter is not None
    assert (policy.adapter.rank, policy.adapter.alpha, policy.adapter.targets) == (4, 6.0, [LAYER])
    assert policy.files == {"their.safetensors": sha256(path)}


def test_without_a_word_alpha_is_the_rank(tmp_path: Path) -> None:
    """As diffusers reads such a file."""
    adapter = resolved(with_lora(saved(tmp_path, lora(4)))).policies["theirs"].adapter
    assert adapter is not None
    assert adapter.alpha == 4


@pytest.mark.parametrize("parameters", ["full", "lora"])
def test_it_is_loaded_whatever_the_experiment_trains(parameters: str, tmp_path: Path) -> None:
    """The layer's weight moves by alpha / rank times the product of both matrices."""
    path = saved(tmp_path, lora(4), **notes(lora_alpha=6))
    settings = resolved(with_lora(path))
    training = settings.training.model_copy(update={"parameters": parameters})
    given = loaded_with(settings.model_copy(update={"training": training}), "theirs")
    policy = load_policy(given, "cpu", seed=1)
    policy.load_trained(path)
    layer = policy.transformer.get_submodule(LAYER)
    plain = layer.base_layer(torch.ones(1, 64))
    moved = layer(torch.ones(1, 64)) - plain
    torch.testing.assert_close(moved, torch.full((1, 64), 6 / 4 * 64 * 4.0))


def test_one_that_our_own_runs_keep_is_read_back(tmp_path: Path) -> None:
    settings = load(default_configfile())
    training = settings.training.model_copy(update={"parameters": "lora"})
    policy = load_policy(settings.model_copy(update={"training": training}), "cpu", seed=3)
    policy.save(tmp_path / "policy")
    adapter = resolved(with_lora(tmp_path / "policy")).policies["theirs"].adapter
    assert adapter is not None
    own = settings.model.lora
    assert (adapter.rank, adapter.alpha) == (own.rank, own.alpha)
    assert all(name.endswith(tuple(own.targets)) for name in adapter.targets)


def test_whole_weights_are_those_of_the_model(tmp_path: Path) -> None:
    (tmp_path / "transformer").symlink_to(BASE)
    entry = {"title": "Theirs", "weights": str(tmp_path)}
    settings = resolved({"theirs": entry})
    assert settings.policies["theirs"].adapter is None
    policy = load_policy(loaded_with(settings, "theirs"), "cpu", seed=1)
    policy.load_trained(folder_of(settings.policies["theirs"]))
    [name] = settings.policies["theirs"].files
    found = load_file(tmp_path / name)
    weights = policy.trainable()
    assert all(torch.equal(weights[key].detach(), found[key]) for key in found)


def test_a_file_that_changed_is_not_sampled(tmp_path: Path) -> None:
    path = saved(tmp_path, lora())
    settings = resolved(with_lora(path))
    saved(tmp_path, {name: 2 * value for name, value in lora().items()})
    with pytest.raises(UserError, match=r"their\.safetensors: is not what it was"):
        loaded_with(settings, "theirs")
    path.unlink()
    with pytest.raises(UserError, match="does not exist"):
        loaded_with(settings, "theirs")


def test_its_content_decides_and_its_place_and_title_do_not(tmp_path: Path) -> None:
    run = Run("clear", "theirs", 1)
    found = []
    for folder, scale in (("a", 1), ("b", 1), ("c", 2)):
        (tmp_path / folder).mkdir()
        tensors = {name: scale * value for name, value in lora().items()}
        found.append(resolved(with_lora(saved(tmp_path / folder, tensors), source=folder)))
    first, moved, other = (jobs.sample_digest(settings, run) for settings in found)
    assert first == moved != other
    ambiguous = Run("ambiguous", "theirs", 1)
    assert jobs.sample_digest(found[0], ambiguous) == first, "one policy, one set of samples"


def test_the_plan_counts_its_jobs(tmp_path: Path) -> None:
    """Three seeds in two experiments: samples serve both."""
    policies = with_lora(saved(tmp_path, lora()))
    alone, beside = (work_of(resolved(each)) for each in ({}, policies))
    more = {rule: count - alone.jobs[rule] for rule, count in beside.jobs.items()}
    assert {rule: count for rule, count in more.items() if count} == {
        "sample": 3,
        "score": 6,
        "harm": 6,
    }
    assert beside.total("files") - alone.total("files") == 3 * 512


def test_a_resolved_configuration_is_read_back(tmp_path: Path) -> None:
    settings = resolved(with_lora(saved(tmp_path, lora())))
    save_resolved(settings, tmp_path / "resolved.yaml")
    assert load_resolved(tmp_path / "resolved.yaml") == settings
    assert "policies" not in load(default_configfile()).model_dump()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def pickled(path: Path) -> None:
    torch.save({"state": torch.ones(3)}, path)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (cut, "it was cut or damaged"),
        (pickled, "is no safetensors"),
        (emptied, "is no safetensors"),
    ],
)
def test_other_files_are_refused(damage: Callable[[Path], None], said: str, tmp_path: Path) -> None:
    path = saved(tmp_path, lora())
    damage(path)
    message = refused(with_lora(path))
    assert message.startswith(f"mine.yaml: policies.theirs.lora: {path}: ")
    assert said in message


@pytest.mark.parametrize(
    ("tensors", "options", "said"),
    [
        (
            lora(layer="blocks.0.attn.to_q"),
            {},
            "a LoRA of another model: 'Scenes .tiny FLUX.' has no",
        ),
        (lora(size=3072), {}, r"is for weights of 3072 x 3072, and that of .* has 64 x 64"),
        (lora() | lora(8, "transformer_blocks.1.attn.to_q"), {}, r"several ranks \(4, 8\)"),
        (lora() | {"text_encoder.x.lora_A.weight": torch.ones(4, 4)}, {}, "without text encoders"),
        ({"lora_unet_x.lora_down.weight": torch.ones(4, 64)}, {}, "is no LoRA of a transformer as"),
        (lora(), notes(use_dora=True), "use_dora is True; a plain LoRA is needed"),
        (lora(), {"lora_adapter_metadata": "{"}, "lora_adapter_metadata cannot be read"),
        (lora(0), {}, "a rank of 0 with lora_alpha None is no LoRA"),
        (lora(), notes(lora_alpha=-1), "a rank of 4 with lora_alpha -1 is no LoRA"),
        (lora(), notes(lora_alpha=[]), "a rank of 4 with lora_alpha .* is no LoRA"),
        (
            lora() | {f"transformer.{LAYER}.lora_A.weight": torch.ones(4)},
            {},
            f"'{LAYER}' has matrices of 4 and 64 x 4; a LoRA of a linear layer is needed",
        ),
        (
            lora() | {f"transformer.{LAYER}.lora_B.weight": torch.ones(64, 5)},
            {},
            "has matrices of 4 x 64 and 64 x 5",
        ),
    ],
)
def test_other_loras_are_refused(
    tensors: dict[str, torch.Tensor], options: dict[str, str], said: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=said) as caught:
        resolved(with_lora(saved(tmp_path, tensors, **options)))
    assert "\n" not in str(caught.value)


def test_other_weights_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "transformer"
    folder.mkdir()
    entry = {"theirs": {"title": "Theirs", "weights": str(tmp_path)}}
    assert "name a folder with all weights in transformer/" in refused(entry)
    whole = BASE / "diffusion_pytorch_model.safetensors"
    a_file = {"theirs": {"title": "Theirs", "weights": str(whole)}}
    assert "name a folder with all weights in transformer/" in refused(a_file)
    weights = load_file(whole)
    name = min(weights)
    place = folder / "diffusion_pytorch_model.safetensors"
    save_file(weights | {name: torch.zeros(2, 2)}, place)
    assert f"'{name}' has 2 x 2 numbers" in refused(entry)
    save_file({key: value for key, value in weights.items() if key != name}, place)
    assert f"it lacks '{name}'" in refused(entry)
    index = folder / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {name: "../../elsewhere.safetensors"}}))
    assert "names a file outside of its folder" in refused(entry)
    index.write_text(json.dumps({"weight_map": {}}))
    assert "does not say which files there are" in refused(entry)


def test_names_and_places(tmp_path: Path) -> None:
    path = saved(tmp_path, lora())
    assert "'nowhere.safetensors' does not exist" in refused(with_lora(Path("nowhere.safetensors")))
    (tmp_path / "empty").mkdir()
    assert "holds no pytorch_lora_weights" in refused(with_lora(tmp_path / "empty"))
    entry = with_lora(path)["theirs"]
    for name, what in {
        "grpo": "an arm",
        "base": "an arm",
        "ddpo": "an arm",  # that has a file, and is not run here
        "oracle": "a reward",
        "scenes_ambiguous_b": "a reward",
    }.items():
        assert f"policies.{name}: {what} has this name" in refused({name: entry})
    both = {"theirs": entry | {"weights": str(path)}}
    assert "policies.theirs: must have one of lora and weights" in refused(both)
    assert "must have one of lora and weights" in refused({"theirs": {"title": "T"}})
    for key, value in {"files": {}, "adapter": None}.items():
        entry = with_lora(path, **{key: value})
        assert f"policies.theirs.{key}: is read from the policy's files" in refused(entry)
    assert "lorra: unknown key" in refused({"theirs": {"title": "T", "lorra": "x"}})


@pytest.fixture
def experts(tmp_path: Path) -> Settings:
    """A model with two experts, each with one layer of 64 x 64."""
    settings = load(default_configfile())
    for part in ("transformer", "transformer_2"):
        (tmp_path / "model" / part).mkdir(parents=True)
        place = tmp_path / "model" / part / "diffusion_pytorch_model.safetensors"
        save_file({f"{LAYER}.weight": torch.zeros(64, 64)}, place)
    model = settings.model.model_copy(update={"path": str(tmp_path / "model")})
    return settings.model_copy(update={"model": model})


def adapters(folder: Path, *each: dict[str, torch.Tensor]) -> Path:
    """A folder with a LoRA for one transformer, or for two experts."""
    for tensors, place in zip(each, (folder, folder / "transformer_2"), strict=False):
        place.mkdir(parents=True)
        save_file(tensors, place / "pytorch_lora_weights.safetensors", metadata={"format": "pt"})
    return folder


def read(settings: Settings, **entry: str) -> GivenPolicy:
    policies = {"theirs": GivenPolicy(title="Theirs", **entry)}
    changed = settings.model_copy(update={"policies": policies})
    return with_policies(changed, [], "mine.yaml").policies["theirs"]


def test_two_experts_have_a_lora_each(experts: Settings, tmp_path: Path) -> None:
    both = adapters(tmp_path / "both", lora(), lora())
    assert sorted(read(experts, lora=str(both)).files) == [
        "pytorch_lora_weights.safetensors",
        "transformer_2/pytorch_lora_weights.safetensors",
    ]
    one = adapters(tmp_path / "one", lora())
    with pytest.raises(UserError, match=r"is for one transformer, and 'Scenes .* has two experts"):
        read(experts, lora=str(one))
    with pytest.raises(UserError, match=r"is for two experts, and 'Scenes .* has one transformer"):
        read(load(default_configfile()), lora=str(both))
    other = adapters(tmp_path / "other", lora(), lora(5))
    with pytest.raises(UserError, match="adapters of both experts differ in rank"):
        read(experts, lora=str(other))
    with pytest.raises(UserError, match="of a model with two experts only a LoRA can be given"):
        read(experts, weights=str(tmp_path / "model"))


def test_which_expert_has_which_file_decides_too() -> None:
    one = GivenPolicy(title="T", lora="x", files={"a": "1", "transformer_2/a": "2"})
    two = GivenPolicy(title="T", lora="x", files={"a": "2", "transformer_2/a": "1"})
    assert one.decides() != two.decides()


def test_a_model_of_the_hub_is_known_as_far_as_it_is_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the hub's cache: whole, with a shard that was not fetched, not at all."""
    folder = tmp_path / "snapshot" / "transformer"
    folder.mkdir(parents=True)
    save_file({f"{LAYER}.weight": torch.zeros(64, 64)}, folder / "1.safetensors")
    index = folder / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {f"{LAYER}.weight": "1.safetensors"}}))
    settings = load(default_configfile())
    path = str(saved(tmp_path, lora(size=32)))
    monkeypatch.setattr(hub, "present", lambda path, revision: folder.parent)
    with pytest.raises(UserError, match="is for weights of 32 x 32"):
        read(settings, lora=path)
    index.write_text(json.dumps({"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}))
    assert read(settings, lora=path).adapter is not None
    monkeypatch.setattr(hub, "present", lambda path, revision: None)
    assert read(settings, lora=path).adapter is not None
