"""What the digest of a run hears of, and what it is deaf to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from shipped_config import spoil

from bpgo.config import resolve as config
from bpgo.config.runs import Run
from bpgo.config.settings import Settings


def digest(settings: Settings, arm: str = "bpgo_ras") -> str:
    return settings.run_digest(Run("ambiguous", arm, 1))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("title", "Another title"),
        ("experiments.ambiguous.title", "Another title"),
        ("experiments.ambiguous.arms", ["grpo", "bpgo_ras", "bpgo_ras_shuffled"]),
        ("experiments.ambiguous.seeds", [1, 2, 3, 4, 5]),
        ("experiments.ambiguous.judges", ["oracle"]),
        ("evaluation.prompts", 400),
        ("analysis.bootstrap_samples", 50),
        ("sweeps", {}),
    ],
)
def test_run_digest_is_deaf_to(key: str, value: Any, values: dict[str, Any], folder: Path) -> None:
    before = config.resolve(values, folder)
    after = config.resolve(spoil(values, key, value), folder)
    assert digest(after) == digest(before)
    assert after.digest() != before.digest()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("training.learning_rate", 2e-4),
        ("training.iterations", 140),
        ("rollout.group_size", 8),
        ("calibration.prompts", 200),
        ("calibration.seed", 1),
        ("analysis.reference_arm", "flow_grpo"),  # whose kernel draws the calibration
        ("experiments.ambiguous.training_reward", "scenes_ambiguous_b"),
    ],
)
def test_run_digest_hears(key: str, value: Any, values: dict[str, Any], folder: Path) -> None:
    values["experiments"]["ambiguous"]["arms"].append("flow_grpo")
    before = config.resolve(values, folder)
    after = config.resolve(spoil(values, key, value), folder)
    assert digest(after) != digest(before)


def test_run_digest_hears_the_arm_and_the_seed(values: dict[str, Any], folder: Path) -> None:
    settings = config.resolve(values, folder)
    path = folder / "arms" / "bpgo_ras.yaml"
    other = {"trust": {"base": "bpgo_ras", "alpha": 0.6}, "source": "elsewhere"}
    path.write_text(yaml.safe_dump(config.read_yaml(path) | other))
    changed = config.resolve(values, folder)
    assert digest(changed) != digest(settings)
    assert digest(changed, "grpo") == digest(settings, "grpo")
    assert len({settings.run_digest(Run("ambiguous", "grpo", seed)) for seed in (1, 2, 3)}) == 3
    same = {"trust": {"base": "bpgo_ras", "alpha": 0.5}, "title": "Renamed"}
    path.write_text(yaml.safe_dump(config.read_yaml(path) | same))
    assert digest(config.resolve(values, folder)) == digest(settings)
