"""Fixtures of the tiny world, and one benchmark of it."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

sys.path.append(str(Path(__file__).resolve().parents[1] / "fixtures"))

from tiny_world import build_tiny_flux

from bpgo.config import resolve as config
from bpgo.tools.bench.run import run_bench

SMALL: dict[str, dict[str, Any]] = {
    "prompts": {},
    "rollout": {"prompts_per_iteration": 2, "group_size": 2, "steps": 3, "batch_size": 4},
    "training": {"optimizer_steps": 1},
    "evaluation": {
        "prompts": 4,
        "curve_prompts": 2,
        "divergence_prompts": 0,
        "diversity_prompts": 0,
    },
    "calibration": {"prompts": 2, "samples_per_prompt": 2},
    "analysis": {"final_stages": 1},
}


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_flux(tmp_path_factory.mktemp("bench") / "policy")


@pytest.fixture(scope="session")
def configfile(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped configuration with a tiny policy, tiny sizes and rewards without weights."""
    folder = tmp_path_factory.mktemp("bench") / "config"
    shutil.copytree(config.default_configfile().parent, folder)
    values = config.read_yaml(folder / "config.yaml")
    for section, change in SMALL.items():
        if change:
            values[section] |= change
    for experiment in values["experiments"].values():
        experiment |= {
            "training_reward": "oracle",
            "judges": ["oracle_strict"],
            "arms": ["grpo", "bpgo"],
        }
    values["sweeps"] = {}
    (folder / "config.yaml").write_text(yaml.safe_dump(values))
    for name, change in (
        ("models/scenes.yaml", {"path": str(tiny)}),
        ("prompts/scenes.yaml", {"train": 8, "evaluation": 8}),
    ):
        (folder / name).write_text(yaml.safe_dump(config.read_yaml(folder / name) | change))
    return folder / "config.yaml"


@pytest.fixture(scope="session")
def found(
    configfile: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], Path]:
    output = tmp_path_factory.mktemp("bench") / "output"
    threads = torch.get_num_threads()
    figures = run_bench(
        configfile,
        output,
        1,
        arms=["flow_grpo", "dance_grpo"],
        startup_of=["schema", "prompts", "draw", "calibrate", "judge", "sample", "sample-base"],
        startup_repeats=1,
    )
    torch.set_num_threads(threads)
    torch.set_deterministic_debug_mode("default")
    return figures, output
