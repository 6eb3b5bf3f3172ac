"""The plan's jobs are Snakemake's."""

from __future__ import annotations

import pytest
from harness import Workspace

from bpgo import config
from bpgo.planning.work import work_of


@pytest.mark.parametrize(("scale", "targets"), [("smoke", ["smoke"]), ("full", [])])
def test_planned_jobs_are_those_of_a_dry_run(
    workspace: Workspace, scale: str, targets: list[str]
) -> None:
    outcome = workspace.snakemake("--dry-run", *targets)
    assert outcome.code == 0, outcome.text
    assert work_of(config.load(workspace.configfile, scale)).jobs == dict(outcome.jobs())
