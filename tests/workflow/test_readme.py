"""What the README promises: its example arm works, its commands and files exist."""

from __future__ import annotations

import importlib.util
import re
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from harness import REPOSITORY, run

from bpgo.config.resolve import load_arm
from bpgo.records import GroupRewards

README = (REPOSITORY / "README.md").read_text()
CONTRACT = [  # what no arm may skip
    "settings_survive_the_way_through_json",
    "every_line_of_a_file_has_its_source",
    "a_file_states_only_how_it_differs",
    "advantages",
    "rewards_are_left_alone",
    "equal_seeds_give_equal_answers",
    "a_plan_trains_what_the_arm_says",
    "state_continues_to_the_bit",
    "constant_groups_carry_no_advantage",
    "it_trains_with_first_ratios_of_exactly_one",
    "it_resumes_to_the_bit",
]


ALGORITHM, CARRIER = "rank_grpo", "flow_bpgo"  # the README's two examples
# An iteration of both in the embedded world, from the files of the copy alone.
TRAINS = """
import json, sys
from pathlib import Path
import yaml
from bpgo.config.resolve import resolve
from bpgo.config.runs import Run
from bpgo.steps.calibrate import calibrate
from bpgo.steps.draw import draw
from bpgo.steps.prompts import write_prompts
from bpgo.steps.train import train

names = sys.argv[1:]
values = yaml.safe_load(Path("config/config.yaml").read_text())
values["experiments"]["ambiguous"] |= {"arms": names, "seeds": [1]}
del values["experiments"]["clear"], values["sweeps"], values["smoke"]
values["training"] |= {"iterations": 1, "snapshot_every": 1, "checkpoint_every": 1}
values["calibration"]["prompts"] = 8
settings = resolve(values | {"analysis": {"main_metric": "oracle"}}, Path("config"))
prompts, calibration = Path("made/train.jsonl"), Path("made/calibration")
draws = Path("made/draws/draws.json")
write_prompts(settings, "train", prompts)
draw(settings, settings.sampler_of("ambiguous").name, prompts, draws)
calibrate(settings, "ambiguous", prompts, draws, calibration)
for name in names:
    run = Run("ambiguous", name, 1)
    train(settings, run, prompts, calibration / "calibration.json", Path("made", name))
"""


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository's code with both examples put in as the README says."""
    folder = tmp_path_factory.mktemp("clone")
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("bpgo", "baselines", "config", "tests/contract", "tests/fixtures"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=ignored)
    for name in ("pyproject.toml", "tests/conftest.py"):
        shutil.copy(REPOSITORY / name, folder / name)
    files = re.findall(r"`((?:baselines|config)/[\w/]+\.\w+)`:\n\n```\w+\n(.*?)```", README, re.S)
    assert [path for path, _ in files] == [
        f"baselines/{ALGORITHM}.py",
        f"config/arms/{ALGORITHM}.yaml",
        f"config/arms/{CARRIER}.yaml",
    ]
    for path, text in files:
        assert not (REPOSITORY / path).exists()
        (folder / path).write_text(text)
    [line] = re.findall(r"`bpgo/registry\.py`:\n\n```python\n(.*?)```", README, re.S)
    registry = folder / "bpgo" / "registry.py"
    registry.write_text(registry.read_text().replace("ARMS = {\n", f"ARMS = {{\n{line}"))
    return folder


def test_the_example_is_short_and_written_like_the_rest(clone: Path) -> None:
    file = clone / "baselines" / f"{ALGORITHM}.py"
    assert len([line for line in file.read_text().splitlines() if line.strip()]) <= 20
    for arguments in (["check"], ["format", "--check"]):
        outcome = run([sys.executable, "-m", "ruff", *arguments, str(file)], cwd=clone)
        assert outcome.code == 0, outcome.text


@pytest.mark.slow
def test_the_examples_keep_the_contract_of_all_arms(clone: Path) -> None:
    chosen = f"{ALGORITHM} or {CARRIER} or every_algorithm or without_torch or need_no_torch"
    command = [sys.executable, "-m", "pytest", "-v", "-n", "0", "-p", "no:cacheprovider"]
    outcome = run([*command, "tests/contract/test_arms.py", "-k", chosen], cwd=clone)
    assert outcome.code == 0, outcome.text
    passed = set(re.findall(r"::test_(\w+(?:\[\w+\])?) PASSED", outcome.text))
    for name in (ALGORITHM, CARRIER):
        assert passed >= {f"{test}[{name}]" for test in CONTRACT}
    assert passed >= {"every_algorithm_has_a_file", "settings_and_passes_need_no_torch"}


@pytest.mark.slow
def test_the_examples_keep_the_contract_in_both_worlds(clone: Path) -> None:
    """First ratios of 1 in the embedded image world; clips too."""
    files = ["tests/contract/test_first_ratios.py", "tests/contract/test_arms_on_video.py"]
    command = [sys.executable, "-m", "pytest", "-v", "-n", "0", "-p", "no:cacheprovider"]
    outcome = run([*command, *files, "-k", f"{ALGORITHM} or {CARRIER}"], cwd=clone)
    assert outcome.code == 0, outcome.text
    for name in (ALGORITHM, CARRIER):
        assert f"test_first_ratios_are_exactly_one[{name}] PASSED" in outcome.text
        assert re.search(rf"test_arms_on_video.*{name}.* PASSED", outcome.text)


@pytest.mark.slow
def test_the_examples_train(clone: Path) -> None:
    """And each does what it is there for."""
    outcome = run([sys.executable, "-c", TRAINS, ALGORITHM, CARRIER], cwd=clone)
    assert outcome.code == 0, outcome.text
    for name in (ALGORITHM, CARRIER):
        metrics = pd.read_parquet(clone / "made" / name / "metrics.parquet")
        assert (metrics["gradient_norm"] > 0).all()
        assert (metrics["ratio_deviation"] == 0).all()
    weights = pd.read_parquet(clone / "made" / CARRIER / "rollouts.parquet")["weight"]
    assert weights.between(0.5, 1.5).all(), "RAS, alpha 0.5"
    assert weights.nunique() > 1


def test_the_example_ranks(clone: Path) -> None:
    """An outlier counts as its rank; equal rewards have equal advantages."""
    file = clone / "baselines" / f"{ALGORITHM}.py"
    spec = importlib.util.spec_from_file_location(ALGORITHM, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    values = load_arm("grpo", REPOSITORY / "config").model_dump(mode="json")
    arm = module.ARM(module.ARM.Settings(**values | {"algorithm": ALGORITHM}))
    rewards = [[0.1, 0.2, 0.3, 0.4], [4.0, 9000.0, 2.0, 1.0], [5.0, 7.0, 7.0, 9.0]]
    groups = GroupRewards(torch.tensor(rewards), ["first", "second", "third"])
    even, outlier, tied = arm.advantage(groups).advantage
    torch.testing.assert_close(even.sort().values, outlier.sort().values)
    assert outlier.argsort().tolist() == [3, 2, 0, 1]
    assert tied[1] == tied[2] == 0


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
