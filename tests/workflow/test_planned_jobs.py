"""The plan's jobs are Snakemake's."""

from __future__ import annotations

import pytest
from harness import Outcome

from bpgo.config import resolve as config
from bpgo.tools.planning.work import work_of


@pytest.mark.parametrize("scale", ["smoke", "full"])
def test_planned_jobs_are_those_of_a_dry_run(plans: dict[str, Outcome], scale: str) -> None:
    jobs = work_of(config.load(config.default_configfile(), scale)).jobs
    assert jobs == dict(plans[scale].jobs())
