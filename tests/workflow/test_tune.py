"""Equal tuning, small, from nothing to what was chosen; a candidate that diverges is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from harness import REPOSITORY, Workspace, workspace_in

from bpgo.config.resolve import load

ROOT = "results/tuning"
ARMS = ["grpo", "awm"]


def shrink(values: dict[str, Any]) -> None:
    """Two arms, two candidates each, few of everything; those of AWM diverge at once."""
    values["experiments"]["ambiguous"].update(arms=ARMS, seeds=[41])
    values["rollout"].update(prompts_per_iteration=4, group_size=4)
    values["training"].update(iterations=2, snapshot_every=1, checkpoint_every=1)
    values["evaluation"].update(prompts=8)
    values["calibration"].update(prompts=8, samples_per_prompt=4)
    ranges = values["tune"]["ranges"]
    ranges["awm"]["kl_weight"] = {"choice": [9.0e29, 1.0e30]}
    values["tune"].update(candidates=2, ranges={arm: ranges[arm] for arm in ARMS})


def test_it_plans_every_candidate_of_every_arm_alike(workspace: Workspace) -> None:
    plan = workspace.snakemake("--dry-run", "tune")
    assert plan.code == 0, plan.text
    settings = load(REPOSITORY / "config" / "tune.yaml")
    assert settings.tune is not None
    [entry] = settings.experiments.values()
    wanted = {
        (ROOT, name, str(seed))
        for arm in entry.arms
        for name in settings.tune.names(arm)
        for seed in entry.seeds
    }
    jobs = [(job["root"], job["arm"], job["seed"]) for job in plan.wildcards("train")]
    assert set(jobs) == wanted
    assert len(jobs) == len(entry.arms) * (1 + settings.tune.candidates) * len(entry.seeds)
    assert "report" not in plan.jobs()


def test_a_search_given_by_name_takes_overlays(workspace: Workspace) -> None:
    smaller = workspace.path("smaller.yaml")
    smaller.write_text("tune: {candidates: 1}\nexperiments: {ambiguous: {arms: [grpo, awm]}}\n")
    plan = workspace.with_config("tune").snakemake("--dry-run", "tune", extra=[smaller])
    assert plan.code == 0, plan.text
    jobs = {(job["root"], job["arm"]) for job in plan.wildcards("train")}
    assert jobs == {(ROOT, name) for name in ("grpo", "grpo_try_01", "awm", "awm_try_01")}
    assert plan.jobs()["tune"] == 1


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    found = workspace_in(tmp_path_factory.mktemp("tune"))
    found.edit(shrink, "tune")
    outcome = found.snakemake("tune")
    assert outcome.code == 0, outcome.text
    return found


@pytest.mark.slow
def test_every_candidate_is_accounted_for(finished: Workspace) -> None:
    root: Path = finished.path(ROOT)
    rows = pd.read_csv(root / "search.csv", keep_default_na=False)
    assert list(rows.groupby("arm", sort=False)["candidate"].apply(list)) == [[0, 1, 2]] * 2
    failed = rows[rows["status"] != ""]
    assert list(failed["name"]) == ["awm_try_01", "awm_try_02"]
    assert failed["status"].str.contains("training failed").all()
    page = (root / "index.html").read_text(encoding="utf-8")
    assert "awm_try_01, seed 41: training failed" in page


@pytest.mark.slow
def test_the_overlay_trains_what_was_chosen(finished: Workspace) -> None:
    chosen = yaml.safe_load(finished.path(f"{ROOT}/chosen.yaml").read_text())
    summary = pd.read_csv(finished.path(f"{ROOT}/tuning.csv")).set_index("arm")
    assert summary["chosen"]["awm"] == 0, "its candidates failed"
    assert chosen["training"]["learning_rates"]["awm"] == 1e-4
    plan = finished.snakemake("--dry-run", "smoke", extra=[finished.path(f"{ROOT}/chosen.yaml")])
    assert plan.code == 0, plan.text


@pytest.mark.slow
def test_nothing_is_left_to_do(finished: Workspace) -> None:
    assert "Nothing to be done" in finished.snakemake("--dry-run", "tune").text
