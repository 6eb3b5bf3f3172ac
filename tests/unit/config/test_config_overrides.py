"""`overrides`: single values of the files that a configuration names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from shipped_config import refusal

from bpgo.config import resolve as config


def test_overrides_change_a_named_file(values: dict[str, Any], folder: Path) -> None:
    values["overrides"] = {}
    values["experiments"]["ambiguous"]["arms"].append("dance_grpo")
    changes = {
        "models": {"scenes": {"path": "/elsewhere"}},
        "rewards": {"oracle": {"output": "strict"}},
        "arms": {"dance_grpo": {"advantage": {"clip": 4.0}}},
    }
    plain = config.resolve(values, folder)
    changed = config.resolve({**values, "overrides": changes}, folder)
    elsewhere = {"path": "/elsewhere", "content": None}  # no folder of ours
    assert changed.model == plain.model.model_copy(update=elsewhere)
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
    smoke = {**values["smoke"], "overrides": {"models": {"scenes": {"resolution": 16}}}}
    values = {**values, "smoke": smoke}
    assert config.resolve(values, folder).model.resolution == 24
    assert config.resolve(values, folder, scale="smoke").model.resolution == 16


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
