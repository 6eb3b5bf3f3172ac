"""The notebook runs as it stands: on stored scores, and on a policy as a run keeps it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
import torch
from harness import REPOSITORY, run

from bpgo.config.resolve import load
from bpgo.steps.loading import load_policy

NOTEBOOK = REPOSITORY / "docs" / "results.ipynb"
TOLD = """
import json
told = {"results": str(results), "rows": len(scores), "oracle": found, "reward": reward}
told["apart"] = float((shown["base"] - list(shown.values())[-1]).abs().max())
told["differences"] = differences.xs("mean", axis=1, level=1).to_dict()
print("told:" + json.dumps(told))
"""


def cells() -> list[Any]:
    found: list[Any] = json.loads(NOTEBOOK.read_text())["cells"]
    return found


def executed(clone: Path) -> dict[str, Any]:
    """What the notebook has found when all of its code has run in `clone`/docs."""
    script = clone / "docs" / "notebook.py"
    script.parent.mkdir()
    code = ["".join(cell["source"]) for cell in cells() if cell["cell_type"] == "code"]
    header = "import matplotlib\nmatplotlib.use('Agg')\n"
    script.write_text(header + "\n".join(code) + TOLD)
    done = run([sys.executable, str(script)], cwd=script.parent)
    assert done.code == 0, done.text
    [line] = [line for line in done.text.splitlines() if line.startswith("told:")]
    told: dict[str, Any] = json.loads(line.removeprefix("told:"))
    return told


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What the notebook reads of a fresh clone."""
    for name in ("Snakefile", "bpgo"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "reference").symlink_to(REPOSITORY / "results" / "reference")
    return tmp_path


def test_it_is_a_notebook_without_outputs() -> None:
    nbformat.validate(nbformat.read(NOTEBOOK, as_version=4))
    for cell in cells():
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@pytest.mark.slow
def test_it_reads_the_published_scores_and_the_shipped_policy(clone: Path) -> None:
    told = executed(clone)
    assert told["results"] == str(clone / "results" / "reference")
    assert told["reward"] == "oracle"
    assert set(told["oracle"]) == {"base"}
    assert told["differences"]["grpo"] == {"ambiguous": 0, "clear": 0}
    assert told["differences"]["oracle_reward"]["ambiguous"] > 0


@pytest.mark.slow
def test_it_reads_results_and_a_trained_policy_of_ones_own(clone: Path) -> None:
    results = clone / "results"
    for name in ("collected", "tables"):
        (results / name).symlink_to(REPOSITORY / "results" / "reference" / name)
    policy = load_policy(load(REPOSITORY / "config" / "config.yaml"), "cpu", seed=1)
    with torch.no_grad():
        for weights in policy.trainable().values():
            weights.mul_(1.05)
    policy.save(results / "runs" / "clear" / "bpgo" / "seed_1" / "policy")
    told = executed(clone)
    assert told["results"] == str(results)
    assert set(told["oracle"]) == {"base", "clear/bpgo/seed_1"}
    assert told["apart"] > 0.01, "the other weights draw other images"
