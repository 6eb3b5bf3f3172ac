"""An arm and its experiment: what cannot be trained, and what a trust rule cannot see, is refused.

Each refusal is one message that names the file, the key, the value and what is allowed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from bpgo.config import resolve as config
from bpgo.config.settings import Settings
from bpgo.core.policy_gradient import PolicyGradient
from bpgo.errors import UserError
from bpgo.rewards.patches import PatchesSettings
from bpgo.trust.specified import SpecifiedSettings

SUM = "sum_of_two"
# 8 groups of 12 samples, 8 steps of which 7 have noise; grpo trains 4 of these.
GROUPS, SAMPLES, TRAINED = 8, 12, 4
ROLLOUT = {
    "prompts_per_iteration": GROUPS,
    "group_size": SAMPLES,
    "steps": 8,
    "deterministic_tail": 1,
    "batch_size": GROUPS * SAMPLES,
}


@pytest.fixture
def folder(folder: Path) -> Path:
    """A copy of the shipped configuration, with a sum of two rewards."""
    parts = {"scenes_ambiguous_a": 1.0, "scenes_ambiguous_b": 1.0}
    entry = {"kind": "weighted_sum", "title": "Sum", "parts": parts}
    (folder / "rewards" / f"{SUM}.yaml").write_text(yaml.safe_dump(entry))
    single = entry | {"parts": {"scenes_ambiguous_a": 1.0}}
    (folder / "rewards" / "sum_of_one.yaml").write_text(yaml.safe_dump(single))
    return folder


def resolved(
    folder: Path, arm: dict[str, Any] | None = None, experiment: Any = None, **changes: Any
) -> Settings:
    """The default's ambiguous world with `arm` as `mine`; `changes` go into the sections.

    Arms are as their files say.
    """
    values = config.read_yaml(folder / "config.yaml") | {"sweeps": {}, "overrides": {}}
    values["rollout"] |= ROLLOUT
    entry = values["experiments"]["ambiguous"] | {"arms": ["grpo"]} | (experiment or {})
    if arm is not None:
        content = {"base": "grpo", "title": "Mine"} | arm
        (folder / "arms" / "mine.yaml").write_text(yaml.safe_dump(content))
        entry["arms"] = [*entry["arms"], "mine"]
    values["experiments"] = {"ambiguous": entry}
    for key, change in changes.items():
        values[key] = {**values.get(key, {}), **change} if isinstance(change, dict) else change
    return config.resolve(values, folder, "my.yaml")


def refusal(folder: Path, *given: Any, **changes: Any) -> str:
    with pytest.raises(UserError) as caught:
        resolved(folder, *given, **changes)
    message = str(caught.value)
    assert len(message.splitlines()) == 1, message
    assert message.startswith("my.yaml: "), message
    assert len(message) < 400
    return message


@pytest.mark.parametrize(
    ("split", "most", "words"),
    [
        ("samples", SAMPLES, "samples of a group (rollout.group_size)"),
        ("groups", GROUPS, "groups of a process, which training.split keeps whole"),
        ("steps", TRAINED, "trained steps of arms.grpo"),
    ],
)
def test_each_optimizer_step_has_something_to_train(
    split: str, most: int, words: str, folder: Path
) -> None:
    resolved(folder, training={"split": split, "optimizer_steps": most})
    message = refusal(folder, training={"split": split, "optimizer_steps": most + 1})
    assert f"training.optimizer_steps: {most + 1} is more than the {most} {words}" in message
    assert f"training.split: {split}" in message


def test_a_process_has_its_own_groups(folder: Path) -> None:
    asked = {"split": "groups", "optimizer_steps": 4}
    resolved(folder, training=asked, machine={"gpus": 2})
    message = refusal(folder, training=asked, machine={"gpus": 4})
    assert "training.optimizer_steps: 4 is more than the 2 groups of a process" in message


def test_steps_on_whole_groups_do_not_depend_on_the_number_of_gpus(folder: Path) -> None:
    asked = {"split": "groups", "optimizer_steps": 3}
    resolved(folder, training=asked, machine={"gpus": 1})
    message = refusal(folder, training=asked, machine={"gpus": 2})
    assert "training.optimizer_steps: 3 does not divide the 4 groups of a process" in message
    assert "machine.gpus, which is 2" in message


def test_an_arm_that_compares_the_samples_of_a_group(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PolicyGradient, "whole_groups", True)
    resolved(folder)
    message = refusal(folder, training={"optimizer_steps": GROUPS + 1})
    assert "training.optimizer_steps: 9 is more than the 8 groups of a process" in message
    assert "which arms.grpo keeps whole" in message
    resolved(folder, rollout={"batch_size": "auto"})
    message = refusal(folder, rollout={"batch_size": SAMPLES - 1})
    assert "rollout.batch_size: 11 is below rollout.group_size, which is 12" in message
    assert "arms.grpo" in message


def test_a_tolerance_is_at_most_a_tenth_of_each_clip_range(folder: Path) -> None:
    resolved(folder, training={"ratio_tolerance": 1e-4})  # grpo's clip range is 1e-3
    message = refusal(folder, training={"ratio_tolerance": 1.1e-4})
    assert "training.ratio_tolerance: 0.00011 is more than a tenth of" in message
    assert "arms.grpo.clip_range, which is 0.001" in message
    message = refusal(folder, {"clip_range": 1e-5}, training={"ratio_tolerance": 1e-4})
    assert "arms.mine.clip_range, which is 1e-05" in message


@pytest.mark.parametrize("rule", ["agreement", "signal_to_noise", "pessimistic", "gardo"])
@pytest.mark.parametrize(
    ("reward", "count"), [("scenes_ambiguous_a", "only one"), ("sum_of_one", "1")]
)
def test_a_rule_of_an_ensemble_needs_two_members(
    rule: str, reward: str, count: str, folder: Path
) -> None:
    arm = {"trust": rule, "kl_weight": 0.01}
    resolved(folder, arm, {"training_reward": SUM})
    message = refusal(folder, arm, {"training_reward": reward})
    assert f"arms.mine.trust.rule: '{rule}' compares the members of an ensemble" in message
    assert f"experiments.ambiguous.training_reward, '{reward}', has {count}" in message
    assert "name a weighted_sum of two or more" in message


def test_a_rule_names_members_that_there_are(folder: Path) -> None:
    arm: dict[str, Any] = {"kl_weight": 0.01}
    known = arm | {"trust": {"base": "gardo", "auxiliary": ["scenes_ambiguous_b"]}}
    resolved(folder, known, {"training_reward": SUM})
    other = arm | {"trust": {"base": "gardo", "auxiliary": ["pickscore"]}}
    message = refusal(folder, other, {"training_reward": SUM})
    assert "arms.mine.trust.rule: 'gardo' names 'pickscore', which is no part of" in message
    assert message.endswith("its parts are scenes_ambiguous_a, scenes_ambiguous_b")


def test_a_window_that_is_cut_short_serves_no_more_steps_than_it_has(folder: Path) -> None:
    """MixGRPO's last place holds one step: two optimizer steps could not share it."""
    arm = {"base": "mix_grpo"}
    resolved(folder, arm, training={"split": "steps", "optimizer_steps": 1})
    message = refusal(folder, arm, training={"split": "steps", "optimizer_steps": 2})
    assert "training.optimizer_steps: 2 is more than the 1 trained steps of arms.mine" in message


@pytest.mark.parametrize("rule", ["specified", {"rule": "shuffled", "of": "specified"}])
def test_a_rule_on_ambiguity_needs_prompts_that_know_it(rule: Any, folder: Path) -> None:
    resolved(folder, {"trust": rule})
    (folder / "prompts" / "own.tsv").write_text(
        "prompt\topen\n" + "\n".join(f"prompt {number}\t0.5" for number in range(1100))
    )
    own = {"path": str(folder / "prompts" / "own.tsv")}
    entry = {"kind": "file", "train": 512, "evaluation": 512, "files": {"own": own}}
    (folder / "prompts" / "own.yaml").write_text(yaml.safe_dump(entry))
    message = refusal(folder, {"trust": rule}, prompts="own")
    named = rule if isinstance(rule, str) else rule["rule"]
    assert f"arms.mine.trust.rule: '{named}' reads how ambiguous each prompt is" in message
    assert "prompts of kind 'file' do not say" in message
    own["ambiguity_column"] = "open"
    (folder / "prompts" / "own.yaml").write_text(yaml.safe_dump(entry))
    resolved(folder, {"trust": rule}, prompts="own")


def test_a_rule_on_a_reference_needs_it_among_the_diagnostics(folder: Path) -> None:
    arm = {"trust": "true_reliability"}
    resolved(folder, arm, {"diagnostics": ["oracle"]})
    message = refusal(folder, arm, {"diagnostics": ["scenes_ambiguous_b"]})
    assert "arms.mine.trust.rule: 'true_reliability' reads the reward 'oracle'" in message
    assert "experiments.ambiguous.diagnostics does not list: scenes_ambiguous_b" in message
    assert refusal(folder, arm, {"diagnostics": []}).endswith("does not list: it is empty")


def test_a_gate_needs_a_regulariser(folder: Path) -> None:
    ensemble = {"training_reward": SUM}
    resolved(folder, {"trust": "gardo", "kl_weight": 0.01}, ensemble)
    message = refusal(folder, {"trust": "gardo", "kl_weight": 0.0}, ensemble)
    assert "arms.mine.trust.rule: 'gardo' gates the regulariser" in message
    assert "kl_weight is 0" in message
    assert "set it above 0" in message


def test_a_tree_takes_no_weights_of_single_samples(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolved(folder, {"base": "branch_grpo", "trust": "specified"})
    monkeypatch.setattr(SpecifiedSettings, "effects", lambda _: {"sample_weights"})
    resolved(folder, {"trust": "specified"})
    message = refusal(folder, {"base": "branch_grpo", "trust": "specified"})
    assert "arms.mine.trust.rule: 'specified' weighs each sample on its own" in message
    assert "branch_grpo cannot carry that: an edge of its tree belongs to several" in message


@pytest.mark.parametrize(
    ("base", "change", "words"),
    [
        (
            "branch_grpo",
            {"tree": {"children": [3, 2, 3]}},
            "tree.children: [3, 2, 3] multiply to 18 samples, but rollout.group_size is 12",
        ),
        (
            "branch_grpo",
            {"tree": {"split_steps": [0, 2, 7]}},
            "tree.split_steps: [0, 2, 7]: the steps with noise are 0 to 6",
        ),
        (
            "branch_grpo",
            {"pruning": {"steps": list(range(7))}},
            "pruning.steps: [0, 1, 2, 3, 4, 5, 6] leaves no step to train",
        ),
        (
            "mix_grpo",
            {"window": {"size": 7}},
            "window.size: 7 is more than the 6 steps that a window may hold",
        ),
        (
            "grpo",
            {"stochastic_steps": 8},
            "stochastic_steps: 8 is more than the 7 steps that may have noise",
        ),
        (
            "dance_grpo",
            {"best_and_worst": 14},
            "best_and_worst: 14 is more than rollout.group_size, which is 12",
        ),
        (
            "tempflow_grpo",
            {"children": 5},
            "children: 5 does not divide rollout.group_size, which is 12",
        ),
        (
            "flash_grpo",
            {"stochastic_steps": 8},
            "stochastic_steps: 8 is more than the 7 steps that may have noise",
        ),
        (
            "flow_grpo_fast",
            {"window": {"within": 7}},
            "window.within: 7 is more than the 6 steps that a window may hold",
        ),
        (
            "diffusion_nft",
            {"trained_fraction": 0.1},
            "trained_fraction: 0.1 of the 8 noise levels that may be trained leaves none",
        ),
        (
            "awm",
            {"skipped_levels": 7},
            "trained_fraction: 0.5 of the 0 noise levels that may be trained leaves none",
        ),
        (
            "flow_dppo",
            {"noisy_steps": 5},
            "noisy_steps: 5 is more than the 4 steps that they are drawn from (noisy_fraction 0.5",
        ),
    ],
)
def test_an_arm_fits_the_rollout(
    base: str, change: dict[str, Any], words: str, folder: Path
) -> None:
    resolved(folder, {"base": base})
    assert f"arms.mine.{words}" in refusal(folder, {"base": base} | change)


@pytest.mark.parametrize("base", ["diffusion_nft", "awm", "dgpo", "crd"])
@pytest.mark.parametrize("key", ["kernel", "noise_level", "stochastic_steps", "step_selection"])
def test_a_forward_process_has_no_stochastic_sampling(base: str, key: str, folder: Path) -> None:
    change = {"kernel": "flow", "step_selection": "all"}.get(key, 1)
    with pytest.raises(UserError, match=rf"arms/mine\.yaml: {key}: ") as caught:
        resolved(folder, {"base": base, key: change})
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("base", ["dgpo", "crd"])
def test_an_arm_that_compares_groups_has_whole_ones(base: str, folder: Path) -> None:
    resolved(folder, {"base": base}, training={"optimizer_steps": GROUPS})
    message = refusal(folder, {"base": base}, training={"optimizer_steps": GROUPS + 1})
    assert "optimizer_steps: 9 is more than the 8 groups of a process, which arms.mine" in message
    message = refusal(folder, {"base": base}, rollout={"batch_size": SAMPLES - 1})
    assert "rollout.batch_size: 11 is below rollout.group_size, which is 12" in message
    assert "arms.mine" in message


def test_flow_dppo_has_no_clip(folder: Path) -> None:
    with pytest.raises(UserError, match=r"arms/mine\.yaml: clip_range: "):
        resolved(folder, {"base": "flow_dppo", "clip_range": 1e-3})


def test_other_rewards_have_no_parts_of_a_sum(folder: Path) -> None:
    """CRT makes rewards of its own; MixGRPO normalises each part of a sum for itself."""
    arm = {"base": "mix_grpo", "trust": "bpgo_crt"}
    resolved(folder, arm)
    resolved(folder, arm, {"training_reward": "sum_of_one"})
    resolved(folder, arm | {"combine": "rewards"}, {"training_reward": SUM})
    resolved(folder, {"base": "mix_grpo", "trust": "bpgo_ras"}, {"training_reward": SUM})
    message = refusal(folder, arm, {"training_reward": SUM})
    assert "arms.mine.trust.rule: 'bpgo' puts other rewards in the place of the given" in message
    assert "mix_grpo cannot carry that: with combine: advantages" in message
    assert "set combine: rewards" in message


def test_an_arm_of_several_rewards_needs_several(folder: Path) -> None:
    arm = {"base": "gdpo"}
    resolved(folder, arm, {"training_reward": SUM, "arms": []})
    resolved(folder, arm | {"combine": "rewards"})
    for reward in ("scenes_ambiguous_a", "sum_of_one"):
        message = refusal(folder, arm, {"training_reward": reward})
        assert f"experiments.ambiguous.training_reward: '{reward}' is one reward" in message
        assert "arms.mine cannot be trained with it: it normalises each part" in message
        assert message.endswith("name a weighted_sum of two or more")
    trusting = arm | {"trust": "bpgo_crt"}
    message = refusal(folder, trusting, {"training_reward": SUM})
    assert "gdpo cannot carry that: with combine: gdpo it normalises each part" in message


def test_criteria_of_duels_are_parts_of_a_sum(folder: Path) -> None:
    arm = {"base": "pref_grpo", "dimension_weight": 0.5}
    resolved(folder, {"base": "pref_grpo"})
    resolved(folder, arm, {"training_reward": SUM, "arms": []})
    message = refusal(folder, arm)
    assert "arms.mine cannot be trained with it: dimension_weight is for the parts" in message
    message = refusal(folder, {"base": "pref_grpo"}, rollout={"group_size": 1})
    assert "rollout.group_size: 1 is not allowed" in message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"tracker": {"min_count": 17}},
            "tracker: min_count: 17 is more than buffer_size, which is 16",
        ),
        (
            {"advantage": {"trimmed_ratio": 0.1}},
            "advantage.min_group_std, advantage.trimmed_ratio: rules of a group, and DDPO",
        ),
    ],
)
def test_what_a_tracker_cannot_do(change: dict[str, Any], words: str, folder: Path) -> None:
    resolved(folder, {"base": "ddpo"})
    with pytest.raises(UserError) as caught:
        resolved(folder, {"base": "ddpo"} | change)
    assert len(str(caught.value).splitlines()) == 1
    assert words in str(caught.value)


def test_an_arm_with_maps_names_features_of_patches(folder: Path) -> None:
    arm = {"base": "vipo"}
    found: Any = resolved(folder, arm | {"features": "dinov2_large"}).arms["mine"]
    assert found.features.path == "facebook/dinov2-large"
    for value, words in (
        ("patchs", ["features: 'patchs' is unknown", "Did you mean 'patches'?", "Known: dinov2"]),
        (None, ["features: names no feature extractor: name a file of config/features"]),
        ("scenes", ["features: 'Oracle's cells' has no features of patches", "such as patches"]),
    ):
        with pytest.raises(UserError) as caught:
            resolved(folder, arm | {"features": value})
        assert len(str(caught.value).splitlines()) == 1
        assert all(word in str(caught.value) for word in words), str(caught.value)


def test_an_arms_features_read_what_the_model_makes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PatchesSettings, "media", ("video",))
    message = refusal(folder, {"base": "vipo"})
    assert "arms.mine.features: 'Patches' read videos, but the model" in message


def test_an_arm_is_asked_in_each_of_its_experiments(folder: Path) -> None:
    """The same arm may have what it reads in one experiment and lack it in another."""
    values = config.read_yaml(folder / "config.yaml") | {"sweeps": {}}
    content = {"base": "grpo", "title": "Mine", "trust": "true_reliability"}
    (folder / "arms" / "mine.yaml").write_text(yaml.safe_dump(content))
    for entry in values["experiments"].values():
        entry["arms"] = ["grpo", "mine"]
    config.resolve(values, folder, "my.yaml")
    values["experiments"]["clear"]["diagnostics"] = []
    with pytest.raises(UserError, match=r"experiments\.clear\.diagnostics does not list"):
        config.resolve(values, folder, "my.yaml")
