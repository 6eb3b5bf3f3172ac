"""What the workflow plans, without running anything."""

from __future__ import annotations

import re
import sys
from collections import Counter

import yaml
from harness import REPOSITORY, Outcome, Workspace, run
from untrained_world import untrained_weights

from bpgo.analysis import COLLECTED
from bpgo.config.jobs import samples_folder
from bpgo.config.resolve import load


def test_default_trains_every_arm_with_every_seed(plans: dict[str, Outcome]) -> None:
    plan = plans["full"]
    runs = [(job["experiment"], job["arm"], job["seed"]) for job in plan.wildcards("train")]
    assert len(runs) == len(set(runs))
    seeds: dict[str, Counter[str]] = {"ambiguous": Counter(), "clear": Counter()}
    for experiment, arm, _ in runs:
        seeds[experiment][arm] += 1
    anchors = ["oracle_reward", "random_reward", "oracle_trust", "anti_trust"]
    named = ["grpo", "bpgo", "bpgo_ras", "bpgo_crt", "bpgo_ras_shuffled", *anchors]
    sweep = {arm: count for arm, count in seeds["ambiguous"].items() if arm not in named}
    assert {arm: seeds["ambiguous"][arm] for arm in named} == dict.fromkeys(named, 3)
    assert seeds["clear"] == dict.fromkeys(["grpo", "bpgo", *anchors], 3)
    assert len(sweep) >= 3
    assert set(sweep.values()) == {3}
    assert all(arm.startswith("bpgo_ras_alpha_") for arm in sweep)


def test_default_scores_the_untrained_policy_and_every_run(plans: dict[str, Outcome]) -> None:
    plan = plans["full"]
    trained, scored = (
        {(job["experiment"], job["arm"], job["seed"]) for job in plan.wildcards(rule)}
        for rule in ("train", "score")
    )
    base = {(name, "base", str(seed)) for name in ("ambiguous", "clear") for seed in (1, 2, 3)}
    assert scored == trained | base
    assert plan.jobs()["sample"] == len(trained)
    assert {job["seed"] for job in plan.wildcards("sample_base")} == {"1", "2", "3"}
    assert plan.jobs()["sample_base"] == 3, "once a seed, for both experiments"


def test_experiments_with_one_sampler_share_what_it_draws(
    workspace: Workspace, plans: dict[str, Outcome]
) -> None:
    assert [job["sampler"] for job in plans["full"].wildcards("draw")] == ["dance_1p6_2"]
    for rule in ("calibrate", "judge"):
        assert {job["experiment"] for job in plans["full"].wildcards(rule)} == {
            "ambiguous",
            "clear",
        }
    # Without the reference arm an experiment's first one draws.
    workspace.edit(lambda values: values["experiments"]["clear"].update(arms=["flow_grpo"]))
    other = workspace.snakemake("--dry-run")
    assert {job["sampler"] for job in other.wildcards("draw")} == {"dance_1p6_2", "flow_0p7"}


def test_smoke_has_every_step_of_the_default(plans: dict[str, Outcome]) -> None:
    full, smoke = (plans[scale].jobs() for scale in ("full", "smoke"))
    assert set(full) - {"all"} == set(smoke) - {"smoke"}
    assert smoke["train"] < full["train"]


def test_adding_an_arm_trains_that_arm_only(
    workspace: Workspace, plans: dict[str, Outcome]
) -> None:
    before = plans["full"].wildcards("train")
    workspace.edit(
        lambda values: values["experiments"]["ambiguous"]["arms"].append("bpgo_standardized")
    )
    after = workspace.snakemake("--dry-run").wildcards("train")
    new = [job for job in after if job not in before]
    assert [job["arm"] for job in new] == ["bpgo_standardized"] * 3


def test_a_sum_of_rewards_is_scored_with_the_calibration(workspace: Workspace) -> None:
    """It has the scales of the parts; nothing else waits for it."""
    parts = {"scenes_ambiguous_a": 1.0, "scenes_ambiguous_b": 1.0}
    entry = {"kind": "weighted_sum", "title": "Both", "parts": parts}
    workspace.path("config/rewards/both.yaml").write_text(yaml.safe_dump(entry))
    workspace.edit(lambda values: values["experiments"]["ambiguous"].update(training_reward="both"))
    plan = workspace.snakemake("--dry-run", "--printshellcmds")
    calls = re.findall(r"bpgo score .*", plan.text)
    assert len(calls) == plan.jobs()["score"] > 0
    for call in calls:
        assert ("--calibration" in call) == ("--experiment ambiguous" in call)


def test_results_can_be_kept_apart(workspace: Workspace) -> None:
    plan = workspace.snakemake("--dry-run", "--config", "root=results/mine")
    assert plan.code == 0, plan.text
    assert {job["root"] for job in plan.wildcards("train")} == {"results/mine"}


def test_figures_without_stored_scores_says_what_to_do(workspace: Workspace) -> None:
    outcome = workspace.snakemake("figures")
    assert outcome.code != 0
    assert "error: figures: there are no stored scores in results/collected" in outcome.text
    assert not workspace.path("results").exists()


def test_figures_train_and_sample_nothing(workspace: Workspace) -> None:
    """Whatever the settings say now, and on a machine with too few GPUs for training."""
    workspace.edit(lambda values: values["training"].update(iterations=1, snapshot_every=1))
    workspace.edit(lambda values: values["analysis"].update(final_stages=1))
    workspace.edit(lambda values: values.update(machine={"gpus": 2}))
    settings = load(workspace.path("config/config.yaml"))
    stored = [f"collected/{name}.parquet" for name in COLLECTED]
    samples = [
        f"samples/{samples_folder(run, settings)}/index.parquet"
        for run in settings.base_runs() + settings.runs()
    ]
    analysis = {"statistics", "tables", "plots", "report", "figures"}
    for files, jobs in ((stored, analysis), (samples, analysis | {"grids"})):
        for name in files:
            path = workspace.path(f"results/{name}")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        plan = workspace.snakemake("--dry-run", "figures")
        assert plan.code == 0, plan.text
        assert set(plan.jobs()) == jobs


def test_a_rule_is_called_like_its_command() -> None:
    files = (REPOSITORY / "workflow" / "rules").glob("*.smk")
    rules = [rule for file in files for rule in re.split(r"^rule ", file.read_text(), flags=re.M)]
    found = {
        name.group(): command.group(1)
        for rule in rules
        if (name := re.match(r"\w+(?=:$)", rule, flags=re.M))
        and (command := re.search(r"(?:python -m bpgo|\{params.program:q\}) ([\w-]+)", rule))
    }
    assert len(found) >= 12
    assert found.pop("pretrain_stage") == "pretrain"  # a part of it
    assert found.pop("candidate") == "instrument"  # one measurement of it
    assert all(name.replace("_", "-") == command for name, command in found.items()), found


def test_pretrain_and_bench_are_made_on_request_only(
    workspace: Workspace, plans: dict[str, Outcome]
) -> None:
    wanted = {"pretrain": {"pretrain_stage": 7, "pretrain": 1}, "bench": {"bench": 1}}
    for target, jobs in wanted.items():
        assert not jobs.keys() & plans["full"].jobs().keys()
        assert workspace.snakemake("--dry-run", target).jobs() == jobs


def test_pretraining_with_a_seed_makes_the_image_world_alone(workspace: Workspace) -> None:
    """In a folder of its own; after the first stage all others can go side by side."""
    words = ("--dry-run", "--printshellcmds", "pretrain", "--config", "pretrain_seed=3")
    plan = workspace.snakemake(*words)
    assert plan.code == 0, plan.text
    stages = {job["stage"] for job in plan.wildcards("pretrain_stage")}
    assert stages == {"first", "policy", "ambiguous", "control", "hidden", "clear"}
    assert "results/pretrain/seed_3" in plan.text
    calls = re.findall(r"bpgo pretrain --stage (\w+) (.*)", plan.text)
    for stage, options in calls:
        assert "--seed 3" in options
        assert (stage == "first") != ("--first results/pretrain_parts/seed_3/first" in options)


def test_a_replicate_of_the_world_is_one_key(workspace: Workspace) -> None:
    weights = untrained_weights(workspace.path("seed_3"))
    workspace.edit(lambda values: values.update(world_weights=str(weights)))
    plan = workspace.snakemake("--dry-run", "smoke")
    assert plan.code == 0, plan.text
    (weights / "rewards" / "clear" / "pool_b.safetensors").unlink()
    plan = workspace.snakemake("--dry-run", "smoke")
    assert plan.code != 0
    errors = [line for line in plan.text.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "world_weights" in errors[0]
    assert "pool_b.safetensors: file is missing" in errors[0]
    assert "Traceback" not in plan.text


def test_hard_captions_are_a_configuration_of_their_own(workspace: Workspace) -> None:
    plan = workspace.with_config("scenes_hard").snakemake("--dry-run")
    assert plan.code == 0, plan.text
    assert {job["root"] for job in plan.wildcards("train")} == {"results/scenes_hard"}
    assert plan.jobs()["train"] == 6 * 3


def test_trust_draws_groups_and_trains_nothing(
    workspace: Workspace, plans: dict[str, Outcome]
) -> None:
    """The two worlds share their groups: one sampler, a table for each seed."""
    plan = workspace.snakemake("--dry-run", "trust")
    once = ("prompts", "draw", "rules", "track", "trust")
    assert plan.jobs() == {"calibrate": 2, "groups": 2} | dict.fromkeys(once, 1)
    drawn = [(job["arm"], job["seed"]) for job in plan.wildcards("groups")]
    assert sorted(drawn) == [("grpo", "1"), ("grpo", "2")]
    assert not {"groups", "rules", "track"} & plans["full"].jobs().keys()


def test_snakemake_finds_nothing_to_lint() -> None:
    outcome = run([sys.executable, "-m", "snakemake", "--lint"])
    assert outcome.code == 0, outcome.text
    assert "your workflow is in a good condition" in outcome.text


def test_snakefmt_finds_nothing_to_format() -> None:
    outcome = run([sys.executable, "-m", "snakefmt", "--check", "Snakefile", "workflow"])
    assert outcome.code == 0, outcome.text


def test_snakefile_stays_a_table_of_contents() -> None:
    lines = (REPOSITORY / "Snakefile").read_text().splitlines()
    assert sum(bool(line.strip()) for line in lines) < 60
