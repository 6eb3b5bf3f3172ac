"""In the embedded image world, with its weights and sizes, every arm starts from ratios of 1."""

from __future__ import annotations

from pathlib import Path

import pytest
from shipped_arms import CONFIG, NAMES, make_arm, values_of

from bpgo.config import resolve as config
from bpgo.config.runs import Run
from bpgo.config.settings import Settings
from bpgo.records import Calibration
from bpgo.steps.prompts import read_prompts, write_prompts
from bpgo.steps.train import build_trainer

EXPERIMENT, PROMPTS = "ambiguous", 32
MEMBERS = ("a", "a_2", "a_3", "a_4")


def with_arm(name: str) -> Settings:
    """The default configuration with this arm alone and few training prompts."""
    file = config.default_configfile()
    values = {k: v for k, v in config.read_yaml(file).items() if k not in config.WORKFLOW_OPTIONS}
    entry = values["experiments"][EXPERIMENT] | {"arms": [name]}
    if make_arm(values_of(name)).refuses_reward(0):  # it wants several
        entry["training_reward"] = "scenes_ambiguous_ensemble"
    values["experiments"] = {EXPERIMENT: entry}
    values["sweeps"] = {}
    if name != "grpo" and "base" not in config.read_yaml(CONFIG / "arms" / f"{name}.yaml"):
        del values["overrides"]["arms"]  # it has nothing of grpo, whose values these are
    values["overrides"]["prompts"] = {"scenes": {"train": PROMPTS}}
    values["evaluation"]["divergence_prompts"] = 0  # some arms have no kernel to measure it with
    values["calibration"] |= {"prompts": PROMPTS}
    return config.resolve(values, CONFIG, file.name)


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The training prompts; beside them a calibration, and later their embeddings."""
    path = tmp_path_factory.mktemp("world") / "prompts" / "train.jsonl"
    write_prompts(with_arm("grpo"), "train", path)
    priors = dict.fromkeys(read_prompts(path).ids, 0.0)
    members = {f"scenes_ambiguous_{name}": {"mean": 0.0, "std": 1.0} for name in MEMBERS}
    Calibration(0.0, 1.0, -3.0, priors, members).save(path.with_name("calibration.json"))
    return path


@pytest.mark.parametrize("name", NAMES)
def test_first_ratios_are_exactly_one(name: str, prompts: Path, tmp_path: Path) -> None:
    """float32: the update's forward passes round as the rollout's."""
    trainer = build_trainer(
        with_arm(name),
        Run(EXPERIMENT, name, 1),
        prompts,
        prompts.with_name("calibration.json"),
        tmp_path,
        "cpu",
    )
    entry = trainer.iterate(1)
    assert entry["ratio_deviation"] == 0.0
    steps = [key for key in entry if key.startswith("first_log_ratio_max_")]
    assert bool(steps) == make_arm(values_of(name)).has_ratio
    assert all(entry[key] == 0.0 for key in steps)
