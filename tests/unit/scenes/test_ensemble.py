"""An ensemble as training reward: rules that compare its members train with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from untrained_world import untrained_weights

from bpgo.config import resolve as config
from bpgo.config.runs import Run
from bpgo.config.settings import Settings
from bpgo.steps.calibrate import calibrate
from bpgo.steps.draw import draw
from bpgo.steps.prompts import write_prompts
from bpgo.steps.train import train

FOLDER = config.default_configfile().parent
MEMBERS = [f"scenes_ambiguous_a{ending}" for ending in ("", "_2", "_3", "_4")]
RULES: dict[str, dict[str, Any]] = {
    "bpgo": {"trust": "agreement"},
    "bpgo_ras": {"trust": "pessimistic"},
    "bpgo_crt": {"trust": "gardo", "kl_weight": 0.04},
}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    values = config.read_yaml(config.default_configfile())
    for key in ("smoke", "sweeps"):
        del values[key]
    entry = {**values["experiments"]["ambiguous"], "training_reward": "scenes_ambiguous_ensemble"}
    entry |= {"arms": ["grpo", *RULES], "seeds": [1]}
    values["experiments"] = {"ambiguous": entry}
    values["analysis"] = {"main_metric": "oracle", "reference_arm": "grpo"}
    values["world_weights"] = str(untrained_weights(tmp_path_factory.mktemp("world") / "w"))
    values["rollout"] |= {"prompts_per_iteration": 4, "group_size": 6}
    values["training"] |= {"iterations": 2, "snapshot_every": 2, "checkpoint_every": 2}
    values["training"] |= {"optimizer_steps": 1}
    values["evaluation"] |= {"prompts": 4, "divergence_prompts": 0, "diversity_prompts": 0}
    values["calibration"] |= {"prompts": 8, "samples_per_prompt": 4}
    values["overrides"] = {
        "prompts": {"scenes": {"train": 16, "evaluation": 16}},
        "arms": RULES,
    }
    return config.resolve(values, FOLDER)


@pytest.fixture(scope="module")
def root(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ensemble")
    prompts, draws = root / "prompts" / "train.jsonl", root / "draws" / "draws.json"
    write_prompts(settings, "train", prompts)
    draw(settings, settings.sampler_of("ambiguous").name, prompts, draws)
    calibrate(settings, "ambiguous", prompts, draws, root / "calibration")
    return root


@pytest.mark.parametrize("arm", list(RULES))
def test_rules_that_compare_members_train_with_it(arm: str, settings: Settings, root: Path) -> None:
    run, output = Run("ambiguous", arm, 1), root / "runs" / "ambiguous" / arm / "seed_1"
    anchor = root / "calibration" / "calibration.json"
    train(settings, run, root / "prompts" / "train.jsonl", anchor, output)
    logged = pd.read_parquet(output / "rollouts.parquet")
    assert {f"part_{name}" for name in MEMBERS} <= set(logged)
    parts = logged[[f"part_{name}" for name in MEMBERS]]
    assert parts.corr().to_numpy().max(axis=0).min() > 0.999
    assert parts.std().min() > 0
    assert not parts["part_scenes_ambiguous_a"].equals(parts["part_scenes_ambiguous_a_2"])
    assert len(pd.read_parquet(output / "metrics.parquet")) == 2
