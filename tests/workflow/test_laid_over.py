"""Several configuration files in one call of Snakemake: what is planned, and what is refused."""

from __future__ import annotations

import pytest
from harness import REPOSITORY, Workspace

PART = REPOSITORY / "config" / "overlays" / "part.yaml"


def test_a_part_plans_exactly_its_runs(workspace: Workspace) -> None:
    plan = workspace.snakemake("--dry-run", extra=[PART])
    assert plan.code == 0, plan.text
    runs = [(each["arm"], each["seed"]) for each in plan.wildcards("train")]
    assert sorted(runs) == [("bpgo", "1"), ("grpo", "1")]
    assert {each["experiment"] for each in plan.wildcards("train")} == {"ambiguous"}
    assert "results/part/report/index.html" in plan.text


def test_a_mistake_names_the_file_that_made_it(workspace: Workspace) -> None:
    mine = workspace.path("mine.yaml")
    mine.write_text("experiments:\n  ambiguous:\n    seeds: none\n")
    outcome = workspace.snakemake("--dry-run", extra=[PART, mine])
    assert outcome.code != 0
    assert f"error: {mine}, line 3: experiments.ambiguous.seeds: 'none' is not" in outcome.text
    assert "Traceback" not in outcome.text
    outcome = workspace.snakemake("--dry-run", "--config", "training={iterations: 0}", extra=[PART])
    assert outcome.code != 0
    assert "error: --config: training.iterations: 0 is not allowed" in outcome.text


def test_rules_are_judged_with_what_a_further_file_overrides(workspace: Workspace) -> None:
    mine = workspace.path("mine.yaml")
    mine.write_text("overrides: {trust: {bpgo: {k: 2.5}}}\n")
    plan = workspace.snakemake("--dry-run", "--printshellcmds", "trust_smoke", extra=[mine])
    assert plan.code == 0, plan.text
    assert f"--configfile {workspace.configfile} {mine} --root results/smoke" in plan.text


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("trust_smoke", ("overrides={trust: {bpgo: {k: 2.5}}}",)),
        ("instrument", ("training={weight_decay: 0.5}", "root=results/mine")),
    ],
)
def test_what_the_command_line_says_counts_for_jobs_that_read_files(
    workspace: Workspace, target: str, words: tuple[str, ...]
) -> None:
    plan = workspace.snakemake("--dry-run", "--printshellcmds", target, "--config", *words)
    assert plan.code == 0, plan.text
    root = "results/mine" if len(words) > 1 else "results"
    assert f" {workspace.configfile} {root}/config/given_" in plan.text
    plan = workspace.snakemake("--dry-run", "--printshellcmds", target)
    assert "given_" not in plan.text


@pytest.mark.parametrize("target", ["video", "video_smoke", "bench"])
def test_what_the_command_line_says_is_refused_where_it_does_not_count(
    workspace: Workspace, target: str
) -> None:
    assert workspace.snakemake("--dry-run", target).code == 0
    outcome = workspace.snakemake("--dry-run", target, "--config", "training={weight_decay: 0.5}")
    assert outcome.code != 0
    assert "error: --config training: does not count for " in outcome.text
    assert "Traceback" not in outcome.text


def test_bench_refuses_files_laid_over_each_other(workspace: Workspace) -> None:
    outcome = workspace.snakemake("--dry-run", "bench", extra=[PART])
    assert outcome.code != 0
    assert "error: bench: measures one configuration file" in outcome.text
