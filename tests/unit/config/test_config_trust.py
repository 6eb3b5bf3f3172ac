"""Arms that build on arms, rules that build on rules, and rules that arms carry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from advantages import PLAIN

from bpgo.config import resolve as config
from bpgo.config.settings import Settings
from bpgo.errors import UserError


def write(folder: Path, name: str, **values: Any) -> None:
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(values))


def resolved(folder: Path, names: list[str], **overrides: Any) -> Settings:
    values = config.read_yaml(folder / "config.yaml") | {"sweeps": {}, "overrides": overrides}
    arms = list(dict.fromkeys(["grpo", *names]))
    values["experiments"] = {
        name: entry | {"arms": arms} for name, entry in values["experiments"].items()
    }
    return config.resolve(values, folder, "my.yaml")


def arm(folder: Path, name: str, **overrides: Any) -> Any:
    return resolved(folder, [name], **overrides).arms[name]


def refusal(folder: Path, name: str, **overrides: Any) -> str:
    with pytest.raises(UserError) as caught:
        resolved(folder, [name], **overrides)
    message = str(caught.value)
    assert len(message.splitlines()) == 1, message
    return message


def test_an_arm_is_its_base_and_what_it_states(folder: Path) -> None:
    write(
        folder, "arms/mine", base="grpo", title="Mine", noise_level=0.4, advantage={"scope": "none"}
    )
    mine, grpo = arm(folder, "mine"), arm(folder, "grpo")
    assert mine.model_dump(exclude={"advantage"}) == grpo.model_dump(exclude={"advantage"}) | {
        "title": "Mine",
        "source": "",  # neither title nor source is anybody else's
        "noise_level": 0.4,
    }
    assert mine.advantage == grpo.advantage.model_copy(update={"scope": "none"})


def test_what_is_overridden_in_the_base_holds_for_what_builds_on_it(folder: Path) -> None:
    write(folder, "arms/mine", base="bpgo", title="Mine", noise_level=0.4)
    changes = {"grpo": {"noise_level": 0.3, "clip_range": 0.01}, "bpgo": {"trained_fraction": 0.5}}
    mine = arm(folder, "mine", arms=changes)
    assert (mine.noise_level, mine.clip_range, mine.trained_fraction) == (0.4, 0.01, 0.5)


def test_an_arm_states_its_own_title(folder: Path) -> None:
    write(folder, "arms/mine", base="grpo")
    message = refusal(folder, "mine")
    assert "mine.yaml: title: missing" in message


@pytest.mark.parametrize("kind", ["arms", "trust"])
def test_files_built_on_themselves_are_refused(kind: str, folder: Path) -> None:
    write(folder, f"{kind}/one", base="two", title="One")
    write(folder, f"{kind}/two", base="three")
    write(folder, f"{kind}/three", base="one")
    if kind == "trust":
        write(folder, "arms/one", base="grpo", title="One", trust="one")
    message = refusal(folder, "one")
    assert "three.yaml: base: 'one' is built on itself: one -> two -> three -> one" in message


def test_a_rule_of_itself_is_refused(folder: Path) -> None:
    write(folder, "trust/one", rule="shuffled", of="two")
    write(folder, "trust/two", rule="anti", of="one")
    write(folder, "arms/mine", base="grpo", title="Mine", trust="one")
    assert "two.yaml: of: 'one' is built on itself: one -> two -> one" in refusal(folder, "mine")


def test_an_unknown_base_is_named(folder: Path) -> None:
    write(folder, "trust/one", base="bgpo")
    write(folder, "arms/mine", base="grpo", title="Mine", trust="one")
    message = refusal(folder, "mine")
    assert "one.yaml: base: 'bgpo' is unknown" in message
    assert "Did you mean 'bpgo'?" in message


def test_the_whole_rule_is_in_the_resolved_arm(folder: Path, tmp_path: Path) -> None:
    settings = resolved(folder, ["bpgo", "bpgo_ras_shuffled"])
    config.save_resolved(settings, tmp_path / "resolved.yaml")
    entry = config.read_yaml(tmp_path / "resolved.yaml")["arms"]["bpgo_ras_shuffled"]["trust"]
    assert (entry["rule"], entry["of"]["rule"], entry["of"]["alpha"]) == ("shuffled", "bpgo", 0.5)
    loaded = config.load_resolved(tmp_path / "resolved.yaml")
    assert loaded == settings
    assert loaded.digest() == settings.digest()


def test_a_spoilt_rule_in_a_resolved_file_is_named(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "resolved.yaml"
    for change, words in (
        ({"alpha": -1}, "arms.bpgo.trust.alpha: -1 is not allowed"),
        ({"alhpa": 1}, "arms.bpgo.trust.alhpa: unknown key. Did you mean 'alpha'?"),
        ({"rule": "bgpo"}, "arms.bpgo.trust.rule: 'bgpo' is not a registered trust rule."),
    ):
        config.save_resolved(resolved(folder, ["bpgo"]), path)
        values = config.read_yaml(path)
        values["arms"]["bpgo"]["trust"] |= change
        path.write_text(yaml.safe_dump(values))
        with pytest.raises(UserError) as caught:
            config.load_resolved(path)
        assert f"{path}: {words}" in str(caught.value)


def test_an_arm_changes_single_values_of_its_rule(folder: Path) -> None:
    named = arm(folder, "bpgo").trust
    write(folder, "arms/mine", base="grpo", title="Mine", trust={"base": "bpgo", "k": 5.0})
    assert arm(folder, "mine").trust == named.model_copy(update={"k": 5.0})
    changed = arm(folder, "bpgo", arms={"bpgo": {"trust": {"k": 5.0}}})
    assert changed.trust == named.model_copy(update={"k": 5.0})
    inner = arm(
        folder, "bpgo_ras_shuffled", arms={"bpgo_ras_shuffled": {"trust": {"of": {"k": 5}}}}
    )
    assert (inner.trust.rule, inner.trust.of.k, inner.trust.of.crt) == ("shuffled", 5.0, "off")


def test_a_rule_changes_everywhere(folder: Path) -> None:
    names = ["bpgo", "bpgo_ras", "bpgo_ras_shuffled"]
    found: Any = resolved(folder, names, trust={"bpgo": {"prior": "sft_mean"}}).arms
    assert found["bpgo"].trust.prior == "sft_mean"
    assert found["bpgo_ras"].trust.prior == "sft_mean"
    assert found["bpgo_ras_shuffled"].trust.of.prior == "sft_mean"
    assert found["grpo"].trust is None


def test_a_named_rule_takes_the_place_of_the_bases(folder: Path) -> None:
    write(folder, "arms/mine", base="bpgo", title="Mine", trust="deviation")
    assert arm(folder, "mine").trust.model_dump() == {"rule": "deviation"}
    write(folder, "arms/mine", base="bpgo", title="Mine", trust={"rule": "specified", "alpha": 0.1})
    assert arm(folder, "mine").trust.model_dump() == {"rule": "specified", "alpha": 0.1}
    write(folder, "arms/mine", base="bpgo", title="Mine", trust={"alpha": 0.1})
    assert arm(folder, "mine").trust == arm(folder, "bpgo").trust.model_copy(update={"alpha": 0.1})
    write(folder, "arms/mine", base="bpgo", title="Mine", trust=None)
    assert arm(folder, "mine").trust is None


def test_a_mistake_is_named_where_it_was_made(folder: Path) -> None:
    message = refusal(folder, "bpgo", arms={"bpgo": {"trust": {"alpha": -1}}})
    assert "arms/bpgo.yaml (with my.yaml: overrides.arms.bpgo): trust.alpha: -1" in message
    message = refusal(folder, "bpgo", trust={"bpgo": {"alpha": -1}})
    assert "trust/bpgo.yaml (with my.yaml: overrides.trust.bpgo): alpha: -1" in message
    message = refusal(folder, "bpgo", trust={"bgpo": {"alpha": 1}})
    assert "my.yaml: overrides.trust: there is no" in message
    assert "Did you mean 'bpgo'?" in message


@pytest.mark.parametrize(
    ("file", "key", "value", "wanted"),
    [
        ("arms/grpo.yaml", "base", "gpro", ["base", "'gpro'", "Did you mean 'grpo'?"]),
        ("arms/grpo.yaml", "base", 3, ["base", "arms", "3"]),
        ("arms/bpgo.yaml", "title", 3, ["title", "3"]),
        ("arms/bpgo.yaml", "trust", "bgpo", ["trust: 'bgpo'", "Did you mean 'bpgo'?", "Known:"]),
        ("arms/bpgo.yaml", "trust", 3, ["trust", "mapping", "3"]),
        ("arms/bpgo.yaml", "trust", {"alpha": 0.1}, ["trust.rule: None", "Known:"]),
        ("arms/bpgo.yaml", "trust", {"rule": "bgpo"}, ["trust.rule: 'bgpo'", "'bpgo'?"]),
        ("arms/bpgo.yaml", "trust", {"base": 3}, ["trust.base", "3"]),
        (
            "arms/bpgo.yaml",
            "trust",
            {"base": "bpgo", "alhpa": 0.1},
            ["trust.alhpa: unknown key", "Did you mean 'alpha'?"],
        ),
        (
            "arms/bpgo.yaml",
            "trust",
            {"base": "bpgo_ras_shuffled", "of": {"alpha": 3}},
            ["trust.of: alpha above 1"],
        ),
        ("arms/grpo.yaml", "noise_level", 0, ["noise_level", "0", "greater than 0"]),
        (
            "arms/grpo.yaml",
            "advantage",
            {**PLAIN, "dof": 1},
            ["advantage.dof", "Did you mean 'ddof'?"],
        ),
        ("arms/grpo.yaml", "step_selection", "all", ["trained_fraction"]),
        ("arms/bpgo.yaml", "alpha", 1.5, ["alpha", "unknown key"]),
        ("trust/bpgo.yaml", "alpha", 1.5, ["alpha above 1"]),
        ("trust/bpgo.yaml", "alpha", "much", ["alpha", "'much'", "number"]),
        ("trust/bpgo.yaml", "rule", "bgpo", ["rule", "'bgpo'", "Did you mean 'bpgo'?"]),
        ("trust/bpgo.yaml", "crtt", "off", ["crtt", "unknown key", "Did you mean 'crt'?"]),
        ("trust/bpgo.yaml", "base", "bpgo", ["base", "built on itself: bpgo -> bpgo"]),
    ],
)
def test_bad_value(file: str, key: str, value: Any, wanted: list[str], folder: Path) -> None:
    content = config.read_yaml(folder / file) | {key: value}
    (folder / file).write_text(yaml.safe_dump(content))
    message = refusal(folder, "bpgo")
    assert not [word for word in [file, *wanted] if word not in message], message
    assert len(message) < 600


def test_two_sweeps_of_one_name_must_agree(folder: Path) -> None:
    values = config.read_yaml(folder / "config.yaml")
    sweep = {"experiment": "ambiguous", "arm": "bpgo_ras_shuffled", "values": [0.1]}
    values["sweeps"] = {"a": {**sweep, "setting": "trust.of.alpha"}}
    found: Any = config.resolve(values, folder).arms["bpgo_ras_shuffled_alpha_0p1"]
    assert found.trust.of.alpha == 0.1
    write(folder, "arms/bpgo_ras_shuffled_alpha_0p1", base="grpo", title="In the way")
    values["experiments"]["ambiguous"]["arms"].append("bpgo_ras_shuffled_alpha_0p1")
    with pytest.raises(UserError, match=r"sweeps\.a: arm 'bpgo_ras_shuffled_alpha_0p1' is there"):
        config.resolve(values, folder)
