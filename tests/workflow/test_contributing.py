"""The worked example of CONTRIBUTING.md: a new reward is two files and one line."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest
from harness import REPOSITORY, run

GUIDE = (REPOSITORY / "CONTRIBUTING.md").read_text()
CONTRACT = [  # what no reward may skip
    "one_number_an_image",
    "deterministic",
    "inputs_are_left_alone",
    "batched_is_the_single_ones",
    "the_image_and_the_text_count",
]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What the contract tests of rewards need, with the example put in as the guide says."""
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("bpgo", "baselines", "config", "tests/contract", "tests/fixtures"):
        shutil.copytree(REPOSITORY / name, tmp_path / name, ignore=ignored)
    for name in ("pyproject.toml", "tests/conftest.py"):
        shutil.copy(REPOSITORY / name, tmp_path / name)
    for path, code in re.findall(
        r"`((?:bpgo|config)/rewards/\w+\.\w+)`:\n\n```\w+\n(.*?)```", GUIDE, re.S
    ):
        assert not (REPOSITORY / path).exists()
        (tmp_path / path).write_text(code)
    [line] = re.findall(r"`bpgo/registry\.py`:\n\n```python\n(.*?)```", GUIDE, re.S)
    registry = tmp_path / "bpgo" / "registry.py"
    registry.write_text(registry.read_text().replace("REWARDS = {\n", f"REWARDS = {{\n{line}"))
    return tmp_path


@pytest.mark.slow
def test_the_example_reward_keeps_the_contract(clone: Path) -> None:
    chosen = "colourfulness or every_kind or without_torch"
    command = [sys.executable, "-m", "pytest", "-v", "-n", "0", "-p", "no:cacheprovider"]
    outcome = run([*command, "tests/contract/test_rewards.py", "-k", chosen], cwd=clone)
    assert outcome.code == 0, outcome.text
    passed = set(re.findall(r"::test_(\w+(?:\[\w+\])?) PASSED", outcome.text))
    assert passed >= {f"{name}[colourfulness]" for name in CONTRACT}
    assert passed >= {"every_kind_has_a_file", "settings_are_checked_without_torch"}


def test_the_example_is_written_like_the_rest(clone: Path) -> None:
    files = [path for path in (clone / "bpgo" / "rewards").glob("*.py") if "colour" in path.name]
    assert len(files) == 1
    for arguments in (["check"], ["format", "--check"]):
        outcome = run([sys.executable, "-m", "ruff", *arguments, str(files[0])], cwd=clone)
        assert outcome.code == 0, outcome.text


def test_linked_files_exist() -> None:
    named = re.findall(r"`((?:bpgo|tests|workflow|config)/[\w/]+\.(?:py|yaml|smk))`", GUIDE)
    example = {"bpgo/rewards/colourfulness.py", "config/rewards/colourfulness.yaml"}
    missing = [name for name in named if not (REPOSITORY / name).exists()]
    assert set(missing) <= {*example, "workflow/envs/NAME.yaml"}
