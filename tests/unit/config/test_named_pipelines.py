"""What a job would find out of a model, a reward or a machine, `resolve` finds out first."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from shipped_config import refusal, spoil
from torch import nn

from bpgo.config import resolve as config
from bpgo.config.checks import EMBEDDED
from bpgo.config.pipelines import KINDS, LAYERS
from bpgo.errors import UserError
from bpgo.registry import MODELS, load_model_class
from bpgo.scenes.image.render import IMAGE_SIZE
from bpgo.scenes.video.render import CLIP_SIZE
from bpgo.storage.files import repository_root

ROOT, FOLDER = repository_root(), "bpgo/scenes/weights/policy"
NOWHERE = "there is no file or folder"
# What is overridden in the model; what the message says.
WRONG: dict[str, tuple[dict[str, Any], list[str]]] = {
    "an absolute path": ({"path": "/nowhere/at/all"}, ["path: ", f"{NOWHERE} '/nowhere/at/all'"]),
    "a path without end": ({"path": "x" * 5000}, ["path: ", f"{NOWHERE} 'xxx"]),
    "a folder of nobody": ({"path": "~nobody_there/x"}, ["path: ", f"{NOWHERE} '~nobody_there"]),
    "no place on the hub": ({"path": "banana"}, ["path: ", f"{NOWHERE} 'banana'"]),
    "a branch": (
        {"path": "owner/name", "revision": "main"},
        ["revision: 'main' is not allowed", "a pinned revision (a commit of 40 hexadecimal"],
    ),
    "a file": ({"path": f"{FOLDER}/model_index.json"}, ["is a file; a folder is needed"]),
    "a part of a pipeline": (
        {"path": f"{FOLDER}/vae"},
        [f"path: {ROOT}/{FOLDER}/vae is not a FluxPipeline folder: missing transformer, vae, sch"],
    ),
    "another pipeline": (
        {"kind": "stable_diffusion_3"},
        ["kind: 'stable_diffusion_3' needs a StableDiffusion3Pipeline", "holds a 'FluxPipeline'"],
    ),
    "another task": (
        {"kind": "wan", "path": "owner/name"},
        ["task: 't2i' is not allowed", "can do t2v or i2v"],
    ),
    "a size between tokens": ({"resolution": 25}, ["resolution: 25 is", "multiples of 8"]),
    "a size without end": ({"resolution": 10**6}, ["resolution: 1000000 is", "equal to 16384"]),
    "no square": ({"width": 48}, ["width: 48 is not allowed: images are square: allowed is 24"]),
    "prompts without end": ({"prompt_tokens": 10**5}, ["prompt_tokens: 100000 is not allowed"]),
    "guidance in one pass": (
        {"guidance_gradient": "conditional"},
        ["guidance_gradient: 'conditional' cannot act"],
    ),
    "a negative prompt": ({"negative_prompt": "blurry"}, ["negative_prompt: 'blurry' cannot act"]),
    "a second expert": ({"boundary": 0.5}, ["boundary: 0.5 cannot act: it has no second expert"]),
    "an unknown layer": (
        {"lora": {"targets": ["to_q", "to_kv"]}},
        ["lora.targets: no linear layer", "'to_kv'", "Did you mean 'to_"],
    ),
    "a size that its rewards cannot read": ({"resolution": 48}, ["resolution: 48 is", "reads 24"]),
}


@pytest.mark.parametrize("case", WRONG)
def test_refused(case: str, values: dict[str, Any], folder: Path) -> None:
    change, wanted = WRONG[case]
    message = refusal(spoil(values, "overrides.models", {"scenes": change}), folder)
    assert not [word for word in wanted if word not in message], message
    assert len(message) < 1500


# Key, value, what the message says.
TOO_MUCH: list[tuple[str, Any, str]] = [
    ("rollout.steps", 1001, "less than or equal to 1000"),
    ("rollout.group_size", 10**9, "less than or equal to 10000"),
    ("training.iterations", 2 * 10**9, "less than or equal to 1000000"),
    ("analysis.bootstrap_samples", 2 * 10**9, "less than or equal to 1000000"),
]


@pytest.mark.parametrize(("key", "value", "wanted"), TOO_MUCH)
def test_more_than_any_machine_holds(
    key: str, value: Any, wanted: str, values: dict[str, Any], folder: Path
) -> None:
    message = refusal(spoil(values, key, value), folder)
    assert message == f"my.yaml: {key}: {value} is not allowed: it must be {wanted}"


def test_more_captions_than_the_grammar_has(values: dict[str, Any], folder: Path) -> None:
    changed = spoil(values, "overrides.prompts", {"scenes": {"train": 10**9}})
    assert "prompts: train: 1000000000 is not allowed" in refusal(changed, folder)


def judged_by(folder: Path, name: str, **change: Any) -> dict[str, Any]:
    """A configuration with one more judge, whose file has been changed."""
    file = folder / "rewards" / f"{name}.yaml"
    file.write_text(yaml.safe_dump(config.read_yaml(file) | change))
    values = config.read_yaml(folder / "config.yaml")
    judges = [*values["experiments"]["clear"]["judges"], name]
    return spoil(values, "experiments.clear.judges", judges)


@pytest.mark.parametrize("key", ["path", "config", "tokenizer"])
def test_every_path_of_a_reward_is_looked_at(key: str, folder: Path) -> None:
    message = refusal(judged_by(folder, "image_reward", **{key: "/nowhere/at/all"}), folder)
    assert message == (
        f"{folder / 'rewards' / 'image_reward.yaml'}: {key}: {NOWHERE} '/nowhere/at/all'"
    )


def test_clips_that_the_embedded_rewards_cannot_read(folder: Path) -> None:
    values = config.read_yaml(folder / "scenes_t2v.yaml")
    values = {key: value for key, value in values.items() if key not in config.WORKFLOW_OPTIONS}
    for key, value in {"resolution": 64, "frames": 9}.items():
        change = {"scenes_t2v": {key: value}}
        assert f"model: {key}: {value} is not allowed: the reward" in refusal(
            spoil(values, "overrides.models", change), folder
        )


def test_an_environment_has_a_file(folder: Path) -> None:
    message = refusal(judged_by(folder, "hpsv2_official", environment="hpsv3"), folder)
    assert "environment: there is no" in message
    assert "Did you mean 'hpsv2'? Known: hpsv2, image_reward, main" in message


def test_a_path_that_is_there(values: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    """Of another FLUX, whose tokens have 16 pixels."""
    for part, said in {
        "vae": {"block_out_channels": [1, 2, 3, 4]},
        "transformer": {"guidance_embeds": False},
    }.items():
        (tmp_path / "flux" / part).mkdir(parents=True)
        (tmp_path / "flux" / part / "config.json").write_text(json.dumps(said))
    (tmp_path / "flux" / "scheduler").mkdir()
    for pixels, problem in ((40, "multiples of 16"), (10**5, "equal to 16384")):
        change = {"path": str(tmp_path / "flux"), "resolution": pixels}
        with pytest.raises(UserError, match=problem):
            config.resolve(spoil(values, "overrides.models", {"scenes": change}), folder)


@pytest.mark.parametrize("content", ["", '{"guidance_embeds": ', "[" * 100_000, "[1]", "\xff"])
def test_a_damaged_folder_is_left_to_the_job_that_loads_it(
    values: dict[str, Any], folder: Path, tmp_path: Path, content: str
) -> None:
    """It names the file; `resolve` neither breaks nor says that there is no guidance."""
    for part in ("transformer", "vae"):
        (tmp_path / "flux" / part).mkdir(parents=True)
        (tmp_path / "flux" / part / "config.json").write_text(content, encoding="latin-1")
    (tmp_path / "flux" / "scheduler").mkdir()
    values["rollout"]["guidance_scale"] = 3.5
    change = {"scenes": {"path": str(tmp_path / "flux")}}
    settings = config.resolve(spoil(values, "overrides.models", change), folder)
    assert settings.rollout.guidance_scale == 3.5


@pytest.mark.parametrize("name", MODELS)
def test_the_kinds_are_what_the_policies_say(name: str) -> None:
    policy, kind = load_model_class(name), KINDS[name]
    assert kind.tasks == policy.TASKS
    assert kind.two_passes == policy.TWO_PASSES
    if not kind.wan:
        assert kind.pipelines == (policy.PIPELINE,)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("flux", {"num_layers": 1, "num_single_layers": 1}),
        ("stable_diffusion_3", {"num_layers": 2, "dual_attention_layers": (0,)}),
        ("wan", {"num_layers": 1, "image_dim": 1280, "added_kv_proj_dim": 5120}),
    ],
)
def test_the_layers_are_what_the_transformers_have(name: str, options: dict[str, Any]) -> None:
    import torch

    module, kind = load_model_class(name).TRANSFORMER.split(":")
    transformer = getattr(import_module(module), kind)
    with torch.device("meta"):
        layers = [
            place
            for place, layer in transformer(**options).named_modules()
            if isinstance(layer, nn.Linear)
        ]
    known = (*LAYERS, *KINDS[name].layers)
    for layer in layers:
        assert any(f".{layer}".endswith(f".{end}") for end in known), layer
    for end in known:
        assert any(f".{layer}".endswith(f".{end}") for layer in layers), end


def test_the_sizes_are_those_of_the_embedded_worlds() -> None:
    assert {kind: pixels for kind, (_, pixels) in EMBEDDED.items()} == {
        "scenes_preference": IMAGE_SIZE,
        "scenes_oracle": IMAGE_SIZE,
        "scenes_video_preference": CLIP_SIZE,
        "scenes_video_oracle": CLIP_SIZE,
    }
