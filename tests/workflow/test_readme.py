"""What the README promises: its example arm works, its commands and files exist."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import torch
import yaml
from harness import REPOSITORY

from bpgo import seeding
from bpgo.records import GroupRewards

README = (REPOSITORY / "README.md").read_text()


def test_example_arm_works(tmp_path: Path) -> None:
    [code] = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) <= 20
    file = tmp_path / "rank_grpo.py"
    file.write_text(code)
    spec = importlib.util.spec_from_file_location("rank_grpo", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    values = yaml.safe_load((REPOSITORY / "config" / "arms" / "grpo.yaml").read_text())
    arm = module.ARM(module.ARM.Settings(**values | {"algorithm": "rank_grpo"}))
    rewards = torch.tensor([[0.1, 0.2, 0.3, 0.4], [4.0, 9000.0, 2.0, 1.0]])
    groups = GroupRewards(rewards, ["first", "second"])
    [term] = arm.advantages(groups, seeding.generator(1, "arm", 1)).terms
    torch.testing.assert_close(term.advantage[0].sort().values, term.advantage[1].sort().values)
    assert term.advantage[1].argsort().tolist() == [3, 2, 0, 1]


def test_commands_are_targets() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z]+):", makefile, flags=re.MULTILINE))
    assert set(re.findall(r"`?make ([a-z]+)", README)) <= targets


def test_linked_files_exist() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    missing = [link for link in links if not (REPOSITORY / link).exists()]
    assert not missing


def test_no_target_is_taken_for_a_configuration() -> None:
    """`--configfile` takes every word that follows it: targets stand before it."""
    for line in README.splitlines():
        for words in re.findall(r"^snakemake .*--configfile ([^#-]+)", line):
            assert all(word.endswith(".yaml") for word in words.split()), line
