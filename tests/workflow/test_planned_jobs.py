"""The plan's jobs are Snakemake's."""

from __future__ import annotations

import ast
import sys

import pytest
from harness import Outcome, Workspace, run

from bpgo.config import resolve as config
from bpgo.tools.planning.work import work_of


@pytest.mark.parametrize("scale", ["smoke", "full"])
def test_planned_jobs_are_those_of_a_dry_run(plans: dict[str, Outcome], scale: str) -> None:
    jobs = work_of(config.load(config.default_configfile(), scale)).jobs
    assert jobs == dict(plans[scale].jobs())


# Calls Snakemake, and says at the end how often each of our functions was looked into.
COUNTING = """
import atexit, inspect, sys
from collections import Counter
looked, plain = Counter(), inspect._signature_from_function

def counting(cls, function, *arguments, **options):
    if function.__code__.co_filename.endswith(".smk"):
        looked[function.__name__] += 1
    return plain(cls, function, *arguments, **options)

inspect._signature_from_function = counting
atexit.register(lambda: print("looked:", dict(looked)))
from snakemake.cli import main
main(sys.argv[1:])
"""


def test_a_plan_looks_once_into_a_function_that_every_run_asks(workspace: Workspace) -> None:
    """Snakemake does so for each job, several times; of a thousand runs it took 1 s in 9."""
    words = ["--configfile", str(workspace.configfile), "--directory", str(workspace.folder)]
    plan = run([sys.executable, "-c", COUNTING, *words, "--cores", "1", "--dry-run"])
    assert plan.code == 0, plan.text
    runs = plan.jobs()["train"]
    assert runs > 20
    looked = ast.literal_eval(plan.text.split("looked: ")[1].strip())
    assert "settings_file" in looked
    assert {name: count for name, count in looked.items() if count >= runs} == {}
