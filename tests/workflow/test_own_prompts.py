"""A user's own prompt list in the workflow: used, checked before any job, and watched."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import pytest
import yaml
from harness import Workspace

from bpgo.scenes.captions import COLOURS, SHAPES

TRAIN = "results/prompts/train.jsonl"


@pytest.fixture
def own_list(workspace: Workspace) -> Path:
    """A workspace whose configuration names a list of 40 prompts."""
    path = workspace.path("my_prompts.txt")
    words = product(("a", "a small", "a large"), COLOURS, SHAPES)  # that the oracle can judge
    path.write_text("".join(f"{' '.join(each)}\n" for each in list(words)[:40]))
    values = {"kind": "file", "train": 24, "evaluation": 16, "files": {"mine": {"path": str(path)}}}
    workspace.path("config/prompts/mine.yaml").write_text(yaml.safe_dump(values))
    workspace.edit(
        lambda values: values.update(
            prompts="mine",
            evaluation=values["evaluation"]
            | {"prompts": 16, "divergence_prompts": 4, "diversity_prompts": 2},
            calibration=values["calibration"] | {"prompts": 16},
            smoke={
                key: value
                for key, value in values["smoke"].items()
                if key not in ("evaluation", "calibration")
            },
        )
    )
    return path


def test_a_change_of_the_list_makes_the_prompts_again(workspace: Workspace, own_list: Path) -> None:
    outcome = workspace.snakemake(TRAIN)
    assert outcome.code == 0, outcome.text
    before = [json.loads(line) for line in workspace.path(TRAIN).read_text().splitlines()]
    assert len(before) == 24
    assert all(prompt["id"].startswith("mine-") for prompt in before)
    assert not workspace.snakemake("--dry-run", TRAIN).jobs()
    own_list.write_text(own_list.read_text().replace("a red circle\n", "something red\n"))
    plan = workspace.snakemake("--dry-run", TRAIN)
    assert plan.jobs() == {"prompts": 1}, plan.text


def test_a_bad_line_stops_before_any_job(workspace: Workspace, own_list: Path) -> None:
    own_list.write_text("a cat\n\na dog\n")
    outcome = workspace.snakemake("--dry-run", TRAIN)
    assert outcome.code != 0
    assert f": files.mine: {own_list}, line 2: is empty; remove it" in outcome.text
    assert not outcome.jobs()
    assert not workspace.path("results").exists()
