"""The smoke DAG from nothing to the report, and what is run again after a change."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from documented_columns import check_all
from harness import Workspace, digests, workspace_in

from bpgo.config.resolve import load_resolved
from bpgo.storage.files import read_json

pytestmark = pytest.mark.slow
ROOT = "results/smoke"
ANALYSIS = {"statistics", "tables", "plots", "grids", "report"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace in which the smoke DAG has run, every job of it, each with less to do."""
    workspace = workspace_in(tmp_path_factory.mktemp("smoke"))
    workspace.edit(shrink)
    outcome = workspace.snakemake("smoke")
    assert outcome.code == 0, outcome.text
    return workspace


def shrink(values: dict) -> None:
    """The same experiments, arms and seeds; few prompts and samples."""
    smoke = values["smoke"]
    values["rollout"].update(prompts_per_iteration=4, group_size=4)
    smoke["evaluation"].update(prompts=12, curve_prompts=6)
    smoke["calibration"].update(prompts=8, samples_per_prompt=4)


@contextmanager
def changed(workspace: Workspace, name: str, **values: Any) -> Iterator[None]:
    """Other values in `config/{name}.yaml` for a while."""
    path = workspace.path(f"config/{name}.yaml")
    kept = path.read_bytes()
    workspace.edit(lambda found: found.update(values), name)
    try:
        yield
    finally:
        path.write_bytes(kept)


def test_it_makes_the_report_tables_and_figures(finished: Workspace) -> None:
    root = finished.path(ROOT)
    page = (root / "report" / "index.html").read_text()
    assert len(page) > 10_000
    assert not re.search(r'(?:src|href)="https?://[^"]*\.(?:js|css|png)"', page), "self-contained"
    for kind in ("csv", "md", "tex"):
        assert list((root / "tables").glob(f"*.{kind}"))
    for kind in ("pdf", "png"):
        assert list((root / "figures").glob(f"*.{kind}"))
    assert list((root / "grids").glob("*.png"))


def test_make_shows_results_and_the_time_left(
    finished: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BPGO_MAKE", "smoke")
    shown = finished.snakemake("smoke", "--forcerun", "score").text
    [line] = [line for line in shown.splitlines() if line.startswith("score clear/grpo/seed_1")]
    assert re.search(r": oracle [.0-9]+ to [.0-9]+, \d:\d\d \[\d+ of \d+ jobs", line)
    assert "rule score:" not in shown
    assert re.search(r"^(\d+) of \1 jobs in \d:\d\d$", shown, re.MULTILINE)
    [log] = sorted(finished.path(".snakemake/log").glob("*.log"))[-1:]
    assert "rule score:" in log.read_text(), "Snakemake's own account is in its log"


def test_every_column_is_documented(finished: Workspace) -> None:
    assert check_all(finished.path(ROOT)) > 30


def test_each_run_has_a_manifest_of_this_configuration(finished: Workspace) -> None:
    [file] = finished.path(f"{ROOT}/config").glob("*.yaml")
    settings = load_resolved(file)
    assert file.stem == settings.digest()
    for run in settings.runs():
        found = read_json(finished.path(f"{ROOT}/runs/{run.folder}/manifest.json"))
        assert found["config_digest"] == settings.run_digest(run)


def test_nothing_is_left_to_do(finished: Workspace) -> None:
    assert "Nothing to be done" in finished.snakemake("--dry-run", "smoke").text


def test_other_settings_of_an_arm_rerun_that_arm_only(finished: Workspace) -> None:
    with changed(finished, "arms/bpgo", trust={"base": "bpgo", "varsigma": 0.25}):
        plan = finished.snakemake("--dry-run", "smoke")
    assert {job["arm"] for job in plan.wildcards("train")} == {"bpgo"}
    assert {job["arm"] for job in plan.wildcards("sample")} == {"bpgo"}
    assert {job["arm"] for job in plan.wildcards("score")} == {"bpgo"}
    assert not {"prompts", "draw", "calibrate", "judge", "sample_base"} & set(plan.jobs())
    assert set(plan.jobs()) >= ANALYSIS


def test_other_analysis_settings_train_nothing(finished: Workspace) -> None:
    analysis = yaml.safe_load(finished.configfile.read_text())["analysis"]
    with changed(finished, "config", analysis=analysis | {"seed": 7}):
        plan = finished.snakemake("--dry-run", "smoke")
    assert set(plan.jobs()) == {"collect", "smoke"} | ANALYSIS


def test_a_changed_arm_trains_again_and_its_results_are_replaced(finished: Workspace) -> None:
    run = f"{ROOT}/runs/ambiguous/bpgo/seed_1/manifest.json"
    before = read_json(finished.path(run))["config_digest"]
    with changed(finished, "arms/bpgo", trust={"base": "bpgo", "varsigma": 0.25}):
        outcome = finished.snakemake(run)
        assert outcome.code == 0, outcome.text
        assert read_json(finished.path(run))["config_digest"] != before
    outcome = finished.snakemake(run)
    assert outcome.code == 0, outcome.text
    assert read_json(finished.path(run))["config_digest"] == before


def test_figures_are_made_from_stored_scores_without_training(
    finished: Workspace, tmp_path: Path
) -> None:
    """Only the stored scores are there: no prompts, runs, samples, nor Snakemake's memory."""
    workspace = workspace_in(tmp_path)
    stored = workspace.path("results/collected")
    shutil.copytree(finished.path(f"{ROOT}/collected"), stored)
    workspace.edit(use_smoke_values)
    outcome = workspace.snakemake("figures")
    assert outcome.code == 0, outcome.text
    assert set(outcome.jobs()) == {"statistics", "tables", "plots", "report", "figures"}
    for name in ("tables", "figures"):
        made, expected = (
            sorted(file.name for file in (root / name).glob("*.*"))
            for root in (workspace.path("results"), finished.path(ROOT))
        )
        assert made == expected
    newer = ["results/prompts/train.jsonl", "results/runs/ambiguous/grpo/seed_1/manifest.json"]
    for name in newer:
        workspace.path(name).parent.mkdir(parents=True, exist_ok=True)
        workspace.path(name).touch()
    assert "Nothing to be done" in workspace.snakemake("figures").text


def test_snakemake_report(finished: Workspace, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    outcome = finished.snakemake("--report", str(page), "--", "smoke")
    assert outcome.code == 0, outcome.text
    assert page.stat().st_size > 10_000


def test_a_further_judge_trains_nothing(finished: Workspace) -> None:
    """Its scores join those of the runs that are there, and the test of the premise."""
    folder, new = finished.path(f"{ROOT}/runs"), "scenes_clear_a"
    before = digests(folder)
    experiments = yaml.safe_load(finished.configfile.read_text())["experiments"]
    experiments["ambiguous"]["judges"].append(new)
    with changed(finished, "config", experiments=experiments):
        outcome = finished.snakemake("smoke")
        assert outcome.code == 0, outcome.text
        # An earlier test has trained a run again, which may be sampled and measured.
        made = set(outcome.jobs()) - {"sample", "harm"}
        assert made == {"judge", "score", "collect", "smoke"} | ANALYSIS
    assert digests(folder) == before
    collected = finished.path(f"{ROOT}/collected")
    for name in ("scores", "calibration"):
        table = pd.read_parquet(collected / f"{name}.parquet")
        assert "ambiguous" in set(table[table["reward"] == new]["experiment"])
    assert read_json(collected / "runs.json")["missing"] == []


def use_smoke_values(values: dict) -> None:
    """Make the smoke scale the configuration's only one."""

    def merge(base: dict, change: dict) -> dict:
        for key, value in change.items():
            inner = isinstance(value, dict) and isinstance(base.get(key), dict)
            base[key] = merge(base[key], value) if inner else value
        return base

    merge(values, values.pop("smoke"))
