"""An empty workspace for each test."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.append(str(Path(__file__).resolve().parents[1] / "fixtures"))

from harness import Outcome, Workspace, workspace_in


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """An empty workspace with a copy of the default configuration."""
    return workspace_in(tmp_path)


@pytest.fixture(scope="session")
def plans(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """Dry runs of the default configuration as it is shipped, by scale."""
    workspace = workspace_in(tmp_path_factory.mktemp("plans"))
    found = {
        "full": workspace.snakemake("--dry-run"),
        "smoke": workspace.snakemake("--dry-run", "smoke"),
    }
    assert not workspace.path("results").exists(), "a dry run writes nothing"
    for plan in found.values():
        assert plan.code == 0, plan.text
    return found
