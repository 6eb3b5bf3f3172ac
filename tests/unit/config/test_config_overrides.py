"""`overrides`: single values of the files that a configuration names."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from shipped_config import refusal

from bpgo.config import resolve as config
from bpgo.config.library import PLACES, leaves
from bpgo.scenes.weights import WEIGHTS


def test_overrides_change_a_named_file(
    values: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    values["overrides"] = {}
    values["experiments"]["ambiguous"]["arms"].append("dance_grpo")
    elsewhere = tmp_path / "policy"
    shutil.copytree(WEIGHTS / "policy", elsewhere)
    changes = {
        "models": {"scenes": {"path": str(elsewhere)}},
        "rewards": {"oracle": {"output": "strict"}},
        "arms": {"dance_grpo": {"advantage": {"clip": 4.0}}},
    }
    plain = config.resolve(values, folder)
    changed = config.resolve({**values, "overrides": changes}, folder)
    # No folder of ours: its content is not known.
    assert changed.model == plain.model.model_copy(update={"path": str(elsewhere), "content": None})
    assert changed.rewards["oracle"].model_dump()["output"] == "strict"
    advantage = changed.arms["dance_grpo"].model_dump()["advantage"]
    assert advantage == {**plain.arms["dance_grpo"].model_dump()["advantage"], "clip": 4.0}
    assert changed.arms["grpo"] == plain.arms["grpo"]
    assert not hasattr(changed, "overrides")


def test_noise_in_the_first_steps_is_for_arms_that_have_the_key(
    values: dict[str, Any], folder: Path
) -> None:
    """Arms that build on grpo hear of its override, but for those that are drawn otherwise."""
    change = {"stochastic_steps": 2, "trained_fraction": 1.0, "step_selection": "all"}
    values["overrides"] = {"arms": {"grpo": change}}
    names = ["bpgo", "branch_grpo", "mix_grpo", "diffusion_nft"]
    arms = values["experiments"]["ambiguous"]["arms"]
    arms += [name for name in names if name not in arms]
    settings = config.resolve(values, folder)
    bpgo: Any = settings.arms["bpgo"]
    assert bpgo.stochastic_steps == 2
    for name in names[1:]:
        assert not hasattr(settings.arms[name], "stochastic_steps")


def test_overrides_at_smoke_scale_only(values: dict[str, Any], folder: Path) -> None:
    smoke = {**values["smoke"], "overrides": {"models": {"scenes": {"decode_pixels": 16}}}}
    values = {**values, "smoke": smoke}
    assert config.resolve(values, folder).model.decode_pixels == 2**20
    assert config.resolve(values, folder, scale="smoke").model.decode_pixels == 16


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": {}}, ["overrides.model", "unknown key", "Did you mean 'models'?"]),
        ({"rewards": {"orakle": {}}}, ["overrides.rewards", "orakle", "Did you mean 'oracle'?"]),
        ({"rewards": {"oracle": 3}}, ["overrides.rewards.oracle", "must be a mapping", "3"]),
        (
            {"rewards": {"oracle": {"outputt": "soft"}}},
            ["oracle.yaml (with my.yaml: overrides.rewards.oracle)", "Did you mean 'output'?"],
        ),
    ],
)
def test_bad_overrides(
    changes: Any, words: list[str], values: dict[str, Any], folder: Path
) -> None:
    message = refusal({**values, "overrides": changes}, folder)
    assert all(word in message for word in words), message


UNUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a model": (
        {"models": {"sd35_medium": {"path": "/data/sd", "lora": {"rank": 8}}}},
        "my.yaml: overrides.models.sd35_medium.lora.rank: cannot act, for nothing here uses"
        " sd35_medium. Used of models: scenes",
    ),
    "an arm": (
        {"arms": {"dance_grpo": {"noise_level": 0.5}}},
        "overrides.arms.dance_grpo.noise_level: cannot act, for nothing here uses dance_grpo.",
    ),
    "a reward": ({"rewards": {"scenes_hidden_a": {"title": "x"}}}, "scenes_hidden_a.title: canno"),
    "features": ({"features": {"dinov2": {"title": "x"}}}, "features.dinov2.title: cannot act"),
    "prompts": ({"prompts": {"starter": {"train": 9}}}, "overrides.prompts.starter.train: cannot"),
}


@pytest.mark.parametrize("case", UNUSED)
def test_what_nothing_uses_cannot_be_changed(
    case: str, values: dict[str, Any], folder: Path
) -> None:
    changes, wanted = UNUSED[case]
    assert wanted in refusal({**values, "overrides": changes}, folder)
    changes = {"overrides": changes}
    assert wanted in refusal({**values, "smoke": {**values["smoke"], **changes}}, folder, "smoke")


def test_changes_for_arms_that_the_smoke_run_leaves_out(
    values: dict[str, Any], folder: Path
) -> None:
    values["overrides"]["arms"]["oracle_reward"] = {"title": "The truth"}
    assert "oracle_reward" not in config.resolve(values, folder, scale="smoke").arms


def test_lists_that_serve_several_configurations(values: dict[str, Any], folder: Path) -> None:
    """Places of files, trust rules, and arms with the learning rates that a search chose."""
    file = {"path": "config/prompts/starter.tsv", "sha256": None}
    values["overrides"] |= {
        "models": {"flux1_dev": {"path": "/data/flux", "revision": None}},
        "rewards": {"pickscore": {"path": "/data/pick", "processor": "/data/clip"}},
        "prompts": {"starter": {"files": {"starter": file}}},
        "trust": {"bpgo_released": {"alpha": 0.5}},
    }
    values["overrides"]["arms"]["dance_grpo"] = {"noise_level": 0.5}
    values["training"]["learning_rates"] = {"dance_grpo": 1e-4, "grpo": 1e-4}
    assert "dance_grpo" not in config.resolve(values, folder).arms


def test_every_place_of_shipped_files_is_known(folder: Path) -> None:
    """So that a list of places may hold it, for a model or reward that is not used, too."""
    place = re.compile(r"[\w.~-]*/[\w./-]+|[0-9a-f]{40}|[0-9a-f]{64}")
    found = {
        keys[-1]
        for kind in ("models", "rewards", "features", "prompts")
        for file in (folder / kind).glob("*.yaml")
        for keys in leaves(config.read_yaml(file))
        if place.fullmatch(str(_at(config.read_yaml(file), keys)))
    }
    assert found <= {*PLACES, "source"}
    assert {"path", "revision", "processor", "tokenizer"} <= found


def _at(values: Any, keys: tuple[str, ...]) -> Any:
    for key in keys:
        values = values[key]
    return values
