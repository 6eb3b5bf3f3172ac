"""One arm that diverges: all else is made, the page says what is missing, and the call fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from harness import Workspace, workspace_in

from bpgo.storage.files import read_json

pytestmark = pytest.mark.slow
ROOT = "results/smoke"


def spoil_one_arm(values: dict[str, Any]) -> None:
    """Three arms, few of everything; the gradient of one is infinite from the first step on."""
    smoke, arms = values["smoke"], ["grpo", "bpgo", "flow_grpo"]
    values["experiments"] = {"ambiguous": values["experiments"]["ambiguous"] | {"arms": arms}}
    smoke["experiments"] = {"ambiguous": {"arms": arms, "seeds": [1, 2]}}
    del values["sweeps"], smoke["sweeps"]
    values["rollout"].update(prompts_per_iteration=4, group_size=4)
    smoke["training"].update(iterations=2, snapshot_every=1, checkpoint_every=1)
    smoke["evaluation"].update(prompts=8)
    smoke["calibration"].update(prompts=8, samples_per_prompt=4)
    smoke.setdefault("analysis", {}).update(bootstrap_samples=50, final_stages=1)
    values["overrides"] = {"arms": {"flow_grpo": {"kl_weight": 1e30}}}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    found = workspace_in(tmp_path_factory.mktemp("failing"))
    found.edit(spoil_one_arm)
    return found


def test_all_else_is_made(workspace: Workspace) -> None:
    outcome = workspace.snakemake("smoke")
    assert outcome.code != 0, outcome.text
    assert f"{ROOT}: ambiguous/flow_grpo/seed_1: training failed" in outcome.text
    root: Path = workspace.path(ROOT)
    assert "bpgo/core/update.py" in read_json(root / "config" / "code.json"), "as the call started"
    missing = read_json(root / "collected" / "runs.json")["missing"]
    assert [(entry["arm"], entry["seed"]) for entry in missing] == [
        ("flow_grpo", 1),
        ("flow_grpo", 2),
    ]
    for file in ("tables/main.md", "report/index.html"):
        text = (root / file).read_text(encoding="utf-8")
        assert "training failed" in text
