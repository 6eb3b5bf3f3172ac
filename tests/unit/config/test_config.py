"""A configuration: every kind of bad input has one message, and digests say what changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from shipped_config import refusal, spoil

from bpgo import registry
from bpgo.config import jobs
from bpgo.config import resolve as config
from bpgo.config.settings import BASE_ARM, MAIN
from bpgo.errors import UserError

# What a message must name: the file, the key, the value, and what is allowed.
BAD = {
    "misspelt key": (
        "training.iteratoins",
        5,
        ["my.yaml", "training.iteratoins", "unknown key", "Did you mean 'iterations'?"],
    ),
    "misspelt first key": ("trainig", {}, ["my.yaml", "trainig", "Did you mean 'training'?"]),
    "key that resolve makes": ("arms", {}, ["my.yaml", "arms", "unknown key"]),
    "misspelt key in an experiment": (
        "experiments.clear.judge",
        [],
        ["experiments.clear.judge", "Did you mean 'judges'?"],
    ),
    "text for a number": (
        "training.iterations",
        "many",
        ["my.yaml", "training.iterations", "'many'", "whole number"],
    ),
    "fraction for a count": ("rollout.steps", 2.5, ["rollout.steps", "2.5", "whole number"]),
    "text for a list": (
        "experiments.clear.arms",
        "grpo",
        ["experiments.clear.arms", "'grpo'", "list"],
    ),
    "below the range": ("training.iterations", 0, ["training.iterations", "0", "greater than"]),
    "above the range": ("analysis.confidence", 1.5, ["analysis.confidence", "1.5", "less than 1"]),
    "infinite": ("training.learning_rate", "inf", ["training.learning_rate", "inf", "finite"]),
    "negative seed": ("experiments.clear.seeds", [-1], ["experiments.clear.seeds.0", "-1"]),
    "no seeds": ("experiments.clear.seeds", [], ["experiments.clear.seeds", "at least 1"]),
    "name with a slash": (
        "experiments.clear.arms",
        ["../grpo"],
        ["experiments.clear.arms.0", "'../grpo'", "a name of a-z"],
    ),
    "unknown arm": (
        "experiments.clear.arms",
        ["gpro"],
        ["my.yaml", "experiments.clear.arms", "'gpro'", "Did you mean 'grpo'?", "Known:"],
    ),
    "arm called base": ("experiments.clear.arms", ["base"], ["experiments.clear.arms", "'base'"]),
    "unknown training reward": (
        "experiments.clear.training_reward",
        "oracl",
        ["experiments.clear.training_reward", "'oracl'", "Did you mean 'oracle"],
    ),
    "unknown judge": ("experiments.clear.judges", ["nobody"], ["experiments.clear.judges", "'nob"]),
    "unknown model": ("model", "flux9", ["my.yaml", "model", "'flux9'", "scenes"]),
    "unknown prompts": ("prompts", "none", ["my.yaml", "prompts", "'none'", "scenes"]),
    "no model": ("model", None, ["my.yaml", "model", "None"]),
    "experiments as a list": ("experiments", ["clear"], ["my.yaml", "experiments", "mapping"]),
    "sweep of a missing experiment": (
        "sweeps.alpha.experiment",
        "ambigous",
        ["sweeps.alpha.experiment", "'ambigous'", "Did you mean 'ambiguous'?"],
    ),
    "sweep of a missing arm": ("sweeps.alpha.arm", "bpgo_rsa", ["sweeps.alpha.arm", "'bpgo_rsa'"]),
    "sweep of a missing setting": (
        "sweeps.alpha.setting",
        "trust.alhpa",
        ["my.yaml: sweeps.alpha.trust.alhpa: unknown key", "Did you mean 'alpha'?"],
    ),
    "sweep of a setting of nothing": (
        "sweeps.alpha.setting",
        "trust.of.alpha",
        ["my.yaml: sweeps.alpha.setting: arm 'bpgo_ras' has no mapping 'of'", "'trust.of.alpha'"],
    ),
    "sweep out of range": ("sweeps.alpha.values", [-0.1], ["sweeps.alpha.trust.alpha", "-0.1"]),
    "more curve prompts than prompts": (
        "evaluation.curve_prompts",
        1000,
        ["evaluation.curve_prompts", "1000", "evaluation.prompts", "512"],
    ),
    "more final stages than a run has": (
        "analysis.final_stages",
        99,
        ["my.yaml: analysis.final_stages: 99", "more than a run has", "training.snapshot_every"],
    ),
    "divergence on more prompts than there are": (
        "evaluation.divergence_prompts",
        513,
        ["evaluation.divergence_prompts", "513", "evaluation.prompts", "512"],
    ),
    "diversity of one sample": (
        "evaluation.diversity_samples",
        1,
        ["my.yaml: evaluation.diversity_samples: 1 is not allowed"],
    ),
    "diversity without features": (
        "features",
        None,
        ["my.yaml: evaluation.diversity_prompts: 32", "config/features"],
    ),
    "unknown features": ("features", "scene", ["my.yaml", "'scene'", "Did you mean 'scenes'?"]),
    "features of clips for images": (
        "features",
        "scenes_video",
        ["my.yaml: features", "read videos", "makes images"],
    ),
    "more evaluation prompts than there are": (
        "evaluation.prompts",
        1000,
        ["evaluation.prompts", "1000", "prompts.evaluation", "512"],
    ),
    "no step with noise": (
        "rollout.deterministic_tail",
        8,
        ["rollout.deterministic_tail", "8", "rollout.steps"],
    ),
    "groups that GPUs cannot share": (
        "machine",
        {"gpus": 3},
        ["machine.gpus", "3 GPUs", "rollout.prompts_per_iteration", "8"],
    ),
    "snapshots after the end": (
        "training.snapshot_every",
        1000,
        ["training.snapshot_every", "1000", "training.iterations"],
    ),
    "unknown main metric": ("analysis.main_metric", "fid", ["analysis.main_metric", "'fid'"]),
    "contrasts at their old place": (
        "analysis.primary",
        {"clear": {"arm": "bpgo", "reference": "grpo", "metric": "oracle"}},
        ["my.yaml: analysis.primary: unknown key. It is experiments.NAME.primary now"],
    ),
    "a contrast of an arm that is not there": (
        "experiments.clear.primary",
        {"arm": "bpgo_rsa", "reference": "grpo", "metric": "oracle"},
        ["experiments.clear.primary.arm: 'bpgo_rsa' is not an arm", "Did you mean 'bpgo_ras'"],
    ),
    "a contrast with an arm that is not there": (
        "experiments.clear.primary",
        {"arm": "bpgo", "reference": "gpro", "metric": "oracle"},
        ["experiments.clear.primary.reference: 'gpro'", "Did you mean 'grpo'"],
    ),
    "a contrast with itself": (
        "experiments.clear.primary",
        {"arm": "bpgo", "reference": "bpgo", "metric": "oracle"},
        ["experiments.clear.primary.reference: 'bpgo' is the arm itself"],
    ),
    "a contrast by what does not judge": (
        "experiments.clear.primary",
        {"arm": "bpgo", "reference": "grpo", "metric": "scenes_ambiguous_a"},
        ["experiments.clear.primary.metric: 'scenes_ambiguous_a'", "Known: scenes_clear_a"],
    ),
    "a contrast that is not whole": (
        "experiments.clear.primary",
        {"arm": "bpgo", "reference": "grpo"},
        ["experiments.clear.primary.metric", "required"],
    ),
    "a misspelt part of a contrast": (
        "experiments.clear.primary",
        {"arm": "bpgo", "reference": "grpo", "metric": "oracle", "refrence": "grpo"},
        ["clear.primary.refrence", "Did you mean 'reference'?", "Allowed: arm, metric, reference"],
    ),
    "no folder of weights": ("world_weights", "", ["my.yaml: world_weights: '' is not allowed"]),
    "a misspelt option of the workflow": (
        "pretrain_sed",
        3,
        ["pretrain_sed: unknown key. Did you mean 'pretrain_seed'?"],
    ),
    "a second run that is not there": (
        "analysis.second_run",
        "results/none",
        ["analysis.second_run: 'results/none' is no folder of results"],
    ),
    "a margin below zero": ("analysis.equivalence_margin", -0.1, ["equivalence_margin", "-0.1"]),
    "a variance of no arm": (
        "analysis.own_variance",
        ["randm"],
        ["analysis.own_variance: 'randm' is not an arm", "grpo"],
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_value(case: str, values: dict[str, Any], folder: Path) -> None:
    key, value, wanted = BAD[case]
    message = refusal(spoil(values, key, value), folder)
    assert not [word for word in wanted if word not in message], message


def test_missing_key(values: dict[str, Any], folder: Path) -> None:
    del values["training"]["learning_rate"]
    message = refusal(values, folder)
    assert "training.learning_rate" in message
    assert "required" in message


def test_every_mistake_is_listed(values: dict[str, Any], folder: Path) -> None:
    values["training"] |= {"iterations": 0, "epsilom": 1}
    with pytest.raises(UserError) as caught:
        config.resolve(values, folder, "my.yaml")
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("file", "key", "value", "wanted"),
    [
        ("arms/grpo.yaml", "algorithm", "gpro", ["'gpro'", "Did you mean 'grpo'?", "Known:"]),
        ("arms/grpo.yaml", "algorithm", ["grpo"], ["['grpo']", "not registered"]),
        ("arms/grpo.yaml", "kernel", "danse", ["kernel", "'danse'", "'dance'"]),
        ("arms/grpo.yaml", "alpha", 0.5, ["alpha", "unknown key", "Allowed:"]),
        ("rewards/oracle.yaml", "kind", "orakel", ["kind", "'orakel'", "Known:"]),
        ("rewards/oracle.yaml", "output", "hard", ["output", "'hard'", "'soft'"]),
        ("models/scenes.yaml", "kind", "fluxx", ["kind", "'fluxx'", "Did you mean 'flux'?"]),
        ("models/scenes.yaml", "dtype", "float16", ["dtype", "'float16'", "'bfloat16'"]),
        ("models/scenes.yaml", "lora", {"rank": 0}, ["lora.rank", "0"]),
        ("prompts/scenes.yaml", "train", "all", ["train", "'all'"]),
    ],
)
def test_bad_value_in_a_named_file(
    file: str, key: str, value: Any, wanted: list[str], values: dict[str, Any], folder: Path
) -> None:
    content = config.read_yaml(folder / file) | {key: value}
    (folder / file).write_text(yaml.safe_dump(content))
    message = refusal(values, folder)
    assert not [word for word in [file, *wanted] if word not in message], message
    assert len(message) < 600


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (None, "no such file"),
        ("title: [unclosed", "YAML"),
        ("- a list", "mapping"),
        ("", "mapping"),
        (b"\xff\xfe\x00title", "YAML"),
    ],
)
def test_unreadable_file(text: Any, word: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    if text is not None:
        path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(UserError, match=word) as caught:
        config.load(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_numbers_in_yaml_1_1_notation(values: dict[str, Any], folder: Path) -> None:
    values["training"] |= {"learning_rate": "1e-4", "epsilon": "1E-9"}
    settings = config.resolve(values, folder)
    assert settings.training.learning_rate == 1e-4
    assert settings.training.epsilon == 1e-9


def test_smoke_replaces_what_it_names(values: dict[str, Any], folder: Path) -> None:
    full, smoke = (config.resolve(values, folder, scale=scale) for scale in ("full", "smoke"))
    wanted = values["smoke"]
    assert smoke.training.iterations == wanted["training"]["iterations"]
    assert smoke.training.learning_rate == full.training.learning_rate
    assert smoke.experiments["ambiguous"].arms == wanted["experiments"]["ambiguous"]["arms"]
    assert smoke.experiments["ambiguous"].judges == full.experiments["ambiguous"].judges
    assert (full.scale, smoke.scale) == ("full", "smoke")
    assert "iteratoins" in refusal(
        spoil(values, "smoke.training.iteratoins", 1), folder, scale="smoke"
    )


@pytest.mark.parametrize("scale", ["full", "smoke"])
def test_resolved_file_gives_the_same_settings(
    scale: str, values: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    settings = config.resolve(values, folder, scale=scale)
    config.save_resolved(settings, tmp_path / "resolved.yaml")
    loaded = config.load_resolved(tmp_path / "resolved.yaml")
    assert loaded == settings
    assert loaded.digest() == settings.digest()
    for run in settings.runs():
        assert loaded.run_digest(run) == settings.run_digest(run)
    for run in settings.runs() + settings.base_runs():
        assert jobs.score_digest(loaded, run, MAIN) == jobs.score_digest(settings, run, MAIN)


def test_an_unresolved_file_is_named(folder: Path) -> None:
    with pytest.raises(UserError, match=r"not a resolved configuration.*resolve --configfile"):
        config.load_resolved(folder / "config.yaml")


@pytest.mark.parametrize("entry", [3, {"algorithm": "nothing"}, {"kind": "nothing"}])
@pytest.mark.parametrize("key", ["arms", "rewards"])
def test_spoilt_resolved_file(key: str, entry: Any, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "resolved.yaml"
    config.save_resolved(config.load(folder / "config.yaml"), path)
    path.write_text(yaml.safe_dump(spoil(config.read_yaml(path), f"{key}.extra", entry)))
    with pytest.raises(UserError) as caught:
        config.load_resolved(path)
    assert str(path) in str(caught.value)


def test_runs_cover_arms_seeds_and_sweeps(values: dict[str, Any], folder: Path) -> None:
    settings = config.resolve(values, folder)
    runs = settings.runs()
    assert len(runs) == len(set(runs))
    ambiguous = settings.experiments["ambiguous"]
    for arm in ambiguous.arms:
        assert {run.seed for run in runs if (run.experiment, run.arm) == ("ambiguous", arm)} == set(
            ambiguous.seeds
        )
    assert "bpgo_ras_alpha_0p1" in {run.arm for run in runs}
    swept: Any = settings.arms["bpgo_ras_alpha_0p1"]
    assert (swept.trust.alpha, swept.title) == (0.1, "BPGO, RAS only, alpha = 0.1")
    assert BASE_ARM not in {run.arm for run in runs}
    assert {run.arm for run in settings.base_runs()} == {BASE_ARM}


def test_every_shipped_arm_resolves(values: dict[str, Any], folder: Path) -> None:
    names = sorted(path.stem for path in (folder / "arms").glob("*.yaml"))
    values["experiments"]["clear"]["arms"] = names
    # GDPO wants several rewards.
    values["experiments"]["clear"]["training_reward"] = "scenes_clear_ensemble"
    settings = config.resolve(values, folder)
    assert set(names) <= set(settings.arms)
    used = {settings.arms[name].algorithm for name in names}  # type: ignore[attr-defined]
    assert used <= set(registry.ARMS)


def test_the_papers_metrics_belong_to_rewards_that_score(
    values: dict[str, Any], folder: Path
) -> None:
    paper = {"table": "table2", "task": "T2I (FLUX)", "metrics": {"scenes_clear_d": "HPSv2"}}
    message = refusal(spoil(values, "experiments.clear.paper", paper), folder)
    assert "my.yaml: experiments.clear.paper.metrics: 'scenes_clear_d'" in message
    assert "Did you mean 'scenes_clear_c'?" in message


def test_snapshots_are_scored_on_all_prompts_by_default(
    values: dict[str, Any], folder: Path
) -> None:
    settings = config.resolve(values, folder, "my.yaml")
    assert settings.evaluation.curve_prompts == settings.evaluation.prompts
    changed = spoil(spoil(values, "evaluation.curve_prompts", 128), "analysis.final_stages", 2)
    message = refusal(changed, folder)
    assert "analysis.final_stages: 2" in message
    assert "evaluation.curve_prompts, 128 of 512" in message


def test_divergence_needs_a_sampler_with_noise(values: dict[str, Any], folder: Path) -> None:
    changed = spoil(values, "experiments.clear.arms", ["diffusion_nft", "grpo"])
    changed = spoil(changed, "analysis.reference_arm", "diffusion_nft")
    assert "evaluation.divergence_prompts: 64" in refusal(changed, folder)
    config.resolve(spoil(changed, "evaluation.divergence_prompts", 0), folder, "my.yaml")


def test_features_come_back_from_a_resolved_file(
    values: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    for name in ("scenes", "dinov2"):
        settings = config.resolve(spoil(values, "features", name), folder, "my.yaml")
        config.save_resolved(settings, tmp_path / "resolved.yaml")
        assert config.load_resolved(tmp_path / "resolved.yaml") == settings
    arms = values["experiments"]["ambiguous"]["arms"]
    arms.append("vipo")  # its features are in the file, too
    settings = config.resolve(values, folder, "my.yaml")
    config.save_resolved(settings, tmp_path / "resolved.yaml")
    assert config.load_resolved(tmp_path / "resolved.yaml") == settings
