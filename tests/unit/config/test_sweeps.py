"""Sweeps over the configuration's own settings, such as a learning rate or a group size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from shipped_config import refusal

from bpgo.config import jobs
from bpgo.config import resolve as config
from bpgo.config.runs import Run
from bpgo.config.settings import Settings


def sweep(setting: str, *swept: Any, arm: str = "grpo") -> dict[str, Any]:
    return {"experiment": "ambiguous", "arm": arm, "setting": setting, "values": list(swept)}


def resolved(values: dict[str, Any], folder: Path, *sweeps: dict[str, Any]) -> Settings:
    named = {f"s{number}": entry for number, entry in enumerate(sweeps)}
    return config.resolve({**values, "sweeps": named}, folder)


def digest(settings: Settings, arm: str) -> str:
    return settings.run_digest(Run("ambiguous", arm, 1))


def test_each_value_is_an_arm_with_settings_of_its_own(
    values: dict[str, Any], folder: Path
) -> None:
    settings = resolved(
        values,
        folder,
        sweep("training.learning_rate", "3e-5", 3e-4),
        sweep("rollout.group_size", 6, 24),
        sweep("training.split", "groups"),
    )
    names = ["learning_rate_3em05", "learning_rate_0p0003", "group_size_6", "group_size_24"]
    arms = [f"grpo_{name}" for name in (*names, "split_groups")]
    assert settings.arms_of("ambiguous")[-5:] == arms
    assert len(settings.runs()) == len(resolved(values, folder).runs()) + 5 * 3
    own = [settings.of_arm(arm) for arm in arms]
    assert [each.training.learning_rate for each in own] == [3e-5, 3e-4, 1e-4, 1e-4, 1e-4]
    assert [each.rollout.group_size for each in own] == [12, 12, 6, 24, 12]
    assert [each.training.split for each in own] == [*["samples"] * 4, "groups"]
    assert settings.arms[arms[0]].title == "GRPO, learning_rate = 3e-05"
    assert settings.of_arm("grpo") == settings.of_arm("bpgo") == settings
    again = yaml.safe_load(yaml.safe_dump(settings.model_dump(mode="json")))["sweeps"]
    assert again["s1"]["values"] == [6, 24]


def test_a_run_is_that_of_a_configuration_with_the_value(
    values: dict[str, Any], folder: Path
) -> None:
    settings = resolved(values, folder, sweep("training.learning_rate", 3e-4))
    values["training"]["learning_rate"] = 3e-4
    assert digest(settings, "grpo_learning_rate_0p0003") == digest(
        config.resolve(values, folder), "grpo"
    )


def test_other_runs_and_what_anchors_them_hear_nothing(
    values: dict[str, Any], folder: Path
) -> None:
    plain = resolved(values, folder)
    settings = resolved(values, folder, sweep("rollout.group_size", 6), sweep("rollout.steps", 4))
    for arm in plain.arms_of("ambiguous"):
        assert digest(settings, arm) == digest(plain, arm)
    assert jobs.judging_digest(settings, "ambiguous") == jobs.judging_digest(plain, "ambiguous")
    values["rollout"]["steps"] = 8  # draws the calibration anew, which anchors every arm
    changed = resolved(values, folder, sweep("rollout.group_size", 6), sweep("rollout.steps", 4))
    arm = "grpo_steps_4"
    assert changed.of_arm(arm).rollout == settings.of_arm(arm).rollout
    assert digest(changed, arm) != digest(settings, arm)


def test_an_arm_of_a_sweep_has_its_arms_own_learning_rate(
    values: dict[str, Any], folder: Path
) -> None:
    values["training"]["learning_rates"] = {"grpo": 5e-4}
    settings = resolved(
        values, folder, sweep("rollout.group_size", 6), sweep("training.learning_rate", 2e-4)
    )
    rates = {
        arm: settings.of_arm(arm).training.learning_rate for arm in settings.arms_of("ambiguous")
    }
    assert (rates["grpo"], rates["grpo_group_size_6"], rates["bpgo"]) == (5e-4, 5e-4, 1e-4)
    assert rates["grpo_learning_rate_0p0002"] == 2e-4


@pytest.mark.parametrize(
    ("setting", "value", "wanted"),
    [
        ("training.iterations", 40, "s0.setting: 'training.iterations' cannot differ between arms"),
        ("evaluation.steps", 4, "s0.setting: 'evaluation.steps' cannot differ between arms: all"),
        ("model.resolution", 32, "s0.setting: 'model.resolution' cannot differ between arms: all"),
        ("model.lora.rank", 8, "s0.setting: 'model.lora.rank' cannot act: all weights are trained"),
        ("rollout.batch_size", 8, "s0.setting: 'rollout.batch_size' changes no result"),
        ("training.learning_rte", 1, "s0.values: training.learning_rte: unknown key. Did you mean"),
        ("training.learning_rate", 0, "s0.values: training.learning_rate: 0 is not allowed"),
        ("rollout.group_size", 1.5, "s0.values: rollout.group_size: 1.5 is not allowed"),
        ("rollout.steps", "many", "s0.values: rollout.steps: 'many' is not allowed"),
        ("training.a.b", 1, "s0.setting: training has no mapping 'a', so no 'training.a.b'"),
        ("training.learning_rate", [1], "s0.values.0: must be a number or a word, not [1]"),
        ("training.learning_rate", float("inf"), "s0.values.0: must be finite, not inf"),
        (
            "rollout.deterministic_tail",
            9,
            "s0: with rollout.deterministic_tail = 9: rollout.deterministic_tail: 9 leaves no step",
        ),
        (
            "training.optimizer_steps",
            13,
            "s0: with training.optimizer_steps = 13: training.optimizer_steps: 13 is more than",
        ),
        (
            "rollout.guidance_scale",
            3.5,
            "s0: with rollout.guidance_scale = 3.5: rollout.guidance_scale: 3.5 cannot act",
        ),
    ],
)
def test_what_no_arm_may_have_for_itself_is_refused(
    setting: str, value: Any, wanted: str, values: dict[str, Any], folder: Path
) -> None:
    message = refusal({**values, "sweeps": {"s0": sweep(setting, value)}}, folder)
    assert message.startswith(f"my.yaml: sweeps.{wanted}"), message


def test_two_sweeps_do_not_make_one_arm(values: dict[str, Any], folder: Path) -> None:
    sweeps = {"one": sweep("rollout.steps", 4), "two": sweep("training.ema_every", 4)}
    config.resolve({**values, "sweeps": sweeps}, folder)
    sweeps = {
        "one": sweep("training.learning_rate", 0.00012345678),
        "two": sweep("training.learning_rate", 0.00012345679),
    }
    message = refusal({**values, "sweeps": sweeps}, folder)
    assert "sweeps.two: arm 'grpo_learning_rate_0p000123457' is there already" in message
