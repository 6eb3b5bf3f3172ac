"""The offline track of trust rules, small, from nothing to its page."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import yaml
from harness import Workspace, workspace_in

pytestmark = pytest.mark.slow
ROOT = "results/smoke/trust"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace in which `trust_smoke` has run, with fewer samples still."""
    workspace = workspace_in(tmp_path_factory.mktemp("trust"))
    workspace.edit(shrink)
    outcome = workspace.snakemake("trust_smoke")
    assert outcome.code == 0, outcome.text
    assert f"Report: {ROOT}/index.html" in outcome.text
    assert "results/smoke/report" not in outcome.text, "no report of runs was made"
    return workspace


def shrink(values: dict) -> None:
    values["rollout"].update(prompts_per_iteration=4, group_size=4)
    values["smoke"]["calibration"].update(prompts=8, samples_per_prompt=4)


def rules_of(folder: Path) -> set[str]:
    return set(pd.read_csv(folder / "trust.csv").rule)


def test_every_rule_of_the_folder_has_a_row_in_every_world(finished: Workspace) -> None:
    table = pd.read_csv(finished.path(f"{ROOT}/trust.csv"))
    files = {file.stem for file in finished.path("config/trust").glob("*.yaml")}
    for world in ("ambiguous", "clear"):
        assert set(table[table.experiment == world].rule) == {*files, "uniform"}
    assert table.efficiency.notna().all()


def test_nothing_is_left_to_do(finished: Workspace) -> None:
    assert "Nothing to be done" in finished.snakemake("--dry-run", "trust_smoke").text


def test_a_new_file_is_a_new_row_and_draws_nothing(finished: Workspace) -> None:
    path = finished.path("config/trust/mine.yaml")
    path.write_text(yaml.safe_dump({"base": "bpgo_ras", "k": 9.0}))
    try:
        outcome = finished.snakemake("trust_smoke")
        assert outcome.code == 0, outcome.text
        assert outcome.jobs() == {"rules": 1, "track": 1, "trust_smoke": 1}
        assert "mine" in rules_of(finished.path(ROOT))
    finally:
        path.unlink()


def test_groups_that_were_cut_have_one_message(finished: Workspace) -> None:
    [file] = finished.path(f"{ROOT}/groups/grpo").glob("*.parquet")
    [config] = finished.path("results/smoke/config").glob("*.yaml")
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])
    try:
        outcome = finished.bpgo(
            "rules",
            "--config",
            config,
            "--configfile",
            finished.configfile,
            "--root",
            finished.path("results/smoke"),
            "--output",
            finished.path("other"),
        )
    finally:
        file.write_bytes(whole)
    assert outcome.code == 2
    [line] = outcome.text.strip().splitlines()
    assert line.startswith(f"error: {file}: cannot be read as Parquet: ")
    assert not finished.path("other").exists()


def test_a_rule_is_judged_as_the_command_line_says(finished: Workspace) -> None:
    def rows(rule: str) -> pd.DataFrame:
        table = pd.read_csv(finished.path(f"{ROOT}/trust.csv"))
        return table[table.rule == rule].reset_index(drop=True)

    before = {rule: rows(rule) for rule in ("bpgo", "uniform")}
    words = ("--config", "overrides={trust: {bpgo: {k: 20.0}}}")
    outcome = finished.snakemake("trust_smoke", *words)
    assert outcome.code == 0, outcome.text
    assert outcome.jobs() == {"rules": 1, "track": 1, "trust_smoke": 1}
    assert rows("uniform").equals(before["uniform"])
    assert not rows("bpgo").equals(before["bpgo"])
    assert "Nothing to be done" in finished.snakemake("--dry-run", "trust_smoke", *words).text
