"""An arm is a small file."""

from __future__ import annotations

from pathlib import Path

import pytest

from bpgo.storage.files import repository_root

FEW = 80  # lines
FILES = sorted((repository_root() / "baselines").glob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_longer_one_says_why_in_its_first_line(file: Path) -> None:
    lines = file.read_text().splitlines()
    assert len(lines) <= FEW or f"over {FEW} lines: " in lines[0]
