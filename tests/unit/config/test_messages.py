"""A mistake is told in one line: key, value (shortened), what is allowed, file and line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from shipped_config import refusal, spoil

from bpgo.config import resolve as config
from bpgo.errors import UserError

LONG = "x" * 100_000
NUMBERS = "it must be 0, or from 1e-30 to 1e+30 in size"
# Key, value, the whole message.
WHOLE: dict[str, tuple[str, Any, str]] = {
    "of two kinds": (
        "rollout.batch_size",
        "banana",
        "rollout.batch_size: 'banana' is not allowed: it must be a whole number or 'auto'",
    ),
    "a number or a list": (
        "rollout.guidance_scale",
        "banana",
        "rollout.guidance_scale: 'banana' is not allowed: it must be a finite number or a list",
    ),
    "no number, where a list may be": (
        "rollout.guidance_scale",
        float("nan"),
        "rollout.guidance_scale: nan is not allowed: it must be a finite number or a list",
    ),
    "an entry of such a list": (
        "rollout.guidance_scale",
        [1.0, "banana"],
        "rollout.guidance_scale.1: 'banana' is not allowed: it must be a finite number",
    ),
    "no mapping": (
        "trust_groups",
        7,
        "trust_groups: 7 is not allowed: it must be a mapping of keys to values",
    ),
    "false for a mapping": (
        "sweeps",
        False,
        "sweeps: must be a mapping of names to entries, not False",
    ),
    "text for a mapping": (
        "overrides",
        "",
        "overrides: must be a mapping of names to entries, not ''",
    ),
    "a number in quotes": (
        "analysis.equivalence_margin",
        "0.5 ",
        "analysis.equivalence_margin: '0.5 ' is not allowed: it must be a finite number",
    ),
    "a number that float32 has as zero": (
        "training.learning_rate",
        5e-324,
        f"training.learning_rate: 4.94066e-324 is not allowed: {NUMBERS}",
    ),
    "a number that float32 has not": (
        "training.weight_decay",
        1e308,
        f"training.weight_decay: 1e+308 is not allowed: {NUMBERS}",
    ),
    "betas that no optimizer has": (
        "training.betas",
        [0.9, 1.5],
        "training.betas.1: 1.5 is not allowed: it must be less than 1",
    ),
    "an empty title": (
        "title",
        " ",
        "title: ' ' is not allowed: it must be one line of visible text",
    ),
    "a title of two lines": (
        "experiments.clear.title",
        "a\nb",
        "experiments.clear.title: 'a\\nb' is not allowed: it must be one line of visible text",
    ),
    "a title without end": (
        "title",
        LONG,
        f"title: {LONG[:199].__repr__()[:-1]}... is not allowed:"
        " it must be text of at most 300 characters",
    ),
}


@pytest.mark.parametrize("case", WHOLE)
def test_the_whole_message(case: str, values: dict[str, Any], folder: Path) -> None:
    key, value, wanted = WHOLE[case]
    assert refusal(spoil(values, key, value), folder) == f"my.yaml: {wanted}"


@pytest.mark.parametrize("key", ["experiments", "training", "overrides.arms.grpo", "sweeps.alpha"])
def test_no_key_and_no_value_makes_a_message_long(
    key: str, values: dict[str, Any], folder: Path
) -> None:
    for wrong in ({LONG: LONG}, [LONG], {"\u202e\n": 1}, dict.fromkeys(map(str, range(9)), LONG)):
        with pytest.raises(UserError) as caught:
            config.resolve(spoil(values, key, wrong), folder, "my.yaml")
        for line in str(caught.value).split("\n"):
            assert line.startswith(("my.yaml: ", str(folder)))
            assert len(line) < 1500
            assert line.isprintable()


def test_one_mistake_at_several_keys_is_told_once(folder: Path) -> None:
    """An anchor puts one value into all ranges."""
    file = folder / "tune.yaml"
    file.write_text(file.read_text().replace("{log: [3.0e-5, 6.0e-4]}", "{log: [3.0e-5, many]}", 1))
    with pytest.raises(UserError) as caught:
        config.load(file)
    line = 1 + next(at for at, each in enumerate(file.read_text().splitlines()) if "many]" in each)
    assert str(caught.value) == (
        f"{file}, line {line}: tune.ranges.grpo.learning_rate.log.1: 'many' is not allowed: it must"
        " be a finite number (so in 19 more keys)"
    )


def test_an_arm_is_right_by_itself(values: dict[str, Any], folder: Path) -> None:
    """What a configuration overrides hides no mistake in the file."""
    file = folder / "arms" / "grpo.yaml"
    spoilt = yaml.safe_load(file.read_text()) | {"step_selection": "banana"}
    file.write_text(yaml.safe_dump(spoilt))
    assert "step_selection: 'banana' is not allowed" in refusal(values, folder)


def test_a_layer_twice(values: dict[str, Any], folder: Path) -> None:
    wrong = {"models": {"scenes": {"lora": {"targets": ["to_q", "to_q"]}}}}
    message = refusal(spoil(values, "overrides", wrong), folder)
    assert "lora.targets: 'to_q' is listed twice" in message


def test_learning_rates_beside_a_search_are_a_mapping(folder: Path) -> None:
    file = folder / "tune.yaml"
    values = config.read_yaml(file)
    values["training"]["learning_rates"] = "grpo"
    assert "training.learning_rates: must be a mapping" in refusal(
        {key: value for key, value in values.items() if key != "root"}, folder
    )
