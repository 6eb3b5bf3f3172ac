"""Every arm of the folder trains in both worlds, without being named anywhere else."""

from __future__ import annotations

import pandas as pd
import pytest
from documented_columns import check_all
from harness import REPOSITORY, Workspace

from bpgo.storage.files import read_json

WORLDS = ("results/smoke_arms", "results/smoke_arms_t2v")
NAMES = sorted(path.stem for path in (REPOSITORY / "config" / "arms").glob("*.yaml"))


def test_it_plans_a_run_of_every_arm_in_each_world(workspace: Workspace) -> None:
    plan = workspace.snakemake("--dry-run", "smoke_arms")
    assert plan.code == 0, plan.text
    runs = [(job["root"], job["arm"]) for job in plan.wildcards("train")]
    assert set(runs) == {(root, name) for root in WORLDS for name in NAMES}
    again = [run for run in runs if run[1] == "grpo"]  # GDPO's rewards are several, and others' one
    assert len(runs) == len(set(runs)) + len(again) / 2
    once = {"prompts": 2, "draw": 2, "calibrate": 4, "smoke_arms": 1}
    assert plan.jobs() == {**once, "train": len(runs)}


def test_one_arm_is_asked_for_by_its_file(workspace: Workspace) -> None:
    """As docs/algorithms.md has it."""
    plan = workspace.snakemake("--dry-run", "results/smoke_arms/runs/arms/awm/seed_1/manifest.json")
    assert plan.code == 0, plan.text
    assert plan.jobs()["train"] == 1


@pytest.mark.slow
def test_every_arm_trains(workspace: Workspace) -> None:
    outcome = workspace.snakemake("smoke_arms")
    assert outcome.code == 0, outcome.text
    for root in WORLDS:
        for name in NAMES:
            experiment = "several" if name == "gdpo" else "arms"
            folder = workspace.path(f"{root}/runs/{experiment}/{name}/seed_1")
            assert read_json(folder / "manifest.json")["arm"] == name
            metrics = pd.read_parquet(folder / "metrics.parquet")
            assert len(metrics) == 2
            assert (metrics["ratio_deviation"] == 0).all(), name
            assert (metrics["gradient_norm"] > 0).all(), name
        check_all(workspace.path(root))
    assert "Nothing to be done" in workspace.snakemake("--dry-run", "smoke_arms").text
