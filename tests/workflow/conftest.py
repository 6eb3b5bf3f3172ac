"""An empty workspace for each test."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.append(str(Path(__file__).resolve().parents[1] / "fixtures"))

from harness import Workspace, workspace_in


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """An empty workspace with a copy of the default configuration."""
    return workspace_in(tmp_path)
