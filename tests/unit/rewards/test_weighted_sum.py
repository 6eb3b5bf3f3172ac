"""Sums of rewards: by hand, through calibration, training and scoring, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from calibrated import draw_calibrate_judge
from tiny_world import make_trainer, redness, tiny_settings
from torch import Tensor

from bpgo.config import resolve as config
from bpgo.config.jobs import score_digest
from bpgo.config.runs import Run
from bpgo.config.settings import Settings
from bpgo.errors import UserError
from bpgo.records import Calibration
from bpgo.rewards.weighted_sum import WeightedSum, WeightedSumSettings
from bpgo.run.progress import read_lines
from bpgo.steps import loading
from bpgo.steps.prompts import write_prompts
from bpgo.steps.sample import sample_base
from bpgo.steps.score import score_run
from bpgo.steps.train import train
from bpgo.storage.files import repository_root

SUM = {"kind": "weighted_sum", "title": "Sum", "parts": {"oracle": 2.0, "oracle_strict": -0.5}}
SCALES = {"oracle": {"mean": 0.25, "std": 0.5}, "oracle_strict": {"mean": 4.0, "std": 2.0}}
SCORES = {"oracle": torch.tensor([0.25, 0.75]), "oracle_strict": torch.tensor([6.0, 2.0])}


def of(scales: dict[str, Any] | None = None, **changes: Any) -> WeightedSum:
    settings = WeightedSumSettings.model_validate({**SUM, **changes})
    calibration = Calibration(0.0, 1.0, 0.0, parts=SCALES if scales is None else scales)
    return WeightedSum(settings, {}, calibration)


def test_by_hand() -> None:
    """2 (r - 0.25) / 0.5 - 0.5 (r' - 4) / 2, and without scales 2 r - 0.5 r'."""
    assert of().combine(SCORES).tolist() == [-0.5, 2.5]
    assert of(standardize=False).combine(SCORES).tolist() == [-2.5, 0.5]


def test_scales_take_units_away() -> None:
    """A part measured in other units, and its scale with it: the same rewards."""
    units = {**SCORES, "oracle": 1000 * SCORES["oracle"] + 7}
    scales = {**SCALES, "oracle": {"mean": 257.0, "std": 500.0}}
    torch.testing.assert_close(of(scales).combine(units), of().combine(SCORES))


def test_parts_without_a_scale() -> None:
    with pytest.raises(UserError, match=r"'Sum': the calibration has no .* part 'oracle'"):
        of({}).combine(SCORES)
    flat = {**SCALES, "oracle_strict": {"mean": 0.0, "std": 0.0}}
    with pytest.raises(UserError, match="'oracle_strict' cannot be standardized"):
        of(flat).combine(SCORES)


@pytest.fixture(scope="module")
def settings(tiny_folder: Path) -> Settings:
    rewards = {
        "oracle": {"kind": "scenes_oracle", "title": "Oracle"},
        "b": {
            "kind": "scenes_preference",
            "title": "B",
            "world": "clear",
            "pool": "b",
        },
        "both": {"kind": "weighted_sum", "title": "Both", "parts": {"oracle": 1.0, "b": 3.0}},
    }
    experiment = {
        "title": "Tiny",
        "training_reward": "both",
        "judges": ["oracle"],
        "diagnostics": ["oracle"],
        "arms": ["grpo"],
        "seeds": [1],
    }
    training = {"iterations": 1, "snapshot_every": 1, "checkpoint_every": 1}
    return tiny_settings(
        tiny_folder,
        rewards=rewards,
        experiments={"tiny": experiment},
        training=training,
        analysis={"main_metric": "both"},
    )


@pytest.fixture(scope="module")
def root(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Calibrated, trained, sampled and scored."""
    root = tmp_path_factory.mktemp("sum")
    prompts = {name: root / "prompts" / f"{name}.jsonl" for name in ("train", "evaluation")}
    for name, path in prompts.items():
        write_prompts(settings, name, path)
    draw_calibrate_judge(settings, "tiny", prompts["train"], root / "calibration")
    calibration = root / "calibration" / "calibration.json"
    train(settings, Run("tiny", "grpo", 1), prompts["train"], calibration, root / "run")
    sample_base(settings, 1, prompts["evaluation"], root / "samples")
    files = (root / "samples", "main", root / "scores.parquet")
    scales = root / "calibration" / "scales.json"
    score_run(settings, Run("tiny", "base", 1), *files, calibration=scales)
    return root


def expected(scores: dict[str, Tensor], calibration: Calibration) -> Tensor:
    total = torch.zeros(())
    for name, weight in (("oracle", 1.0), ("b", 3.0)):
        scale = calibration.parts[name]
        total = total + weight * (scores[name] - scale["mean"]) / scale["std"]
    return total


def calibration_of(root: Path) -> Calibration:
    return Calibration.load(root / "calibration" / "calibration.json")


def test_calibration_knows_parts_and_sum(root: Path) -> None:
    """Under the sampler that they come from, standardized parts have mean 0 and deviation 1."""
    found = calibration_of(root)
    assert set(found.parts) == {"oracle", "b"}
    assert found.mean == pytest.approx(0.0, abs=1e-5)
    assert 0 < found.std <= 4.0  # of two standardized rewards with weights 1 and 3
    samples = pd.read_parquet(root / "calibration" / "samples.parquet")
    assert set(samples.reward) == {"both", "oracle", "b"}
    wide = samples.pivot(index=["prompt_id", "sample"], columns="reward", values="score")
    parts = {name: torch.tensor(wide[name].to_numpy()) for name in ("oracle", "b")}
    total = expected(parts, found)
    torch.testing.assert_close(torch.tensor(wide["both"].to_numpy()), total, rtol=0, atol=1e-5)


def test_scores_of_parts_and_sum(root: Path) -> None:
    scores = pd.read_parquet(root / "scores.parquet")
    wide = scores.pivot(index=["prompt_id", "sample"], columns="reward", values="score")
    parts = {name: torch.tensor(wide[name].to_numpy()) for name in ("oracle", "b")}
    total = expected(parts, calibration_of(root))
    torch.testing.assert_close(torch.tensor(wide["both"].to_numpy()), total, rtol=1e-5, atol=1e-5)


def test_parts_are_logged(root: Path) -> None:
    [entry] = read_lines(root / "run" / "metrics.jsonl")
    rollouts = pd.read_parquet(root / "run" / "rollouts.parquet")
    for name in ("oracle", "b"):
        assert entry[f"part_{name}"] == pytest.approx(rollouts[f"part_{name}"].mean(), abs=1e-5)
    assert rollouts.part_oracle.tolist() == rollouts.oracle.tolist()  # the diagnostic
    parts = {name: torch.tensor(rollouts[f"part_{name}"].to_numpy()) for name in ("oracle", "b")}
    total = expected(parts, calibration_of(root))
    torch.testing.assert_close(
        torch.tensor(rollouts.reward.to_numpy()), total, rtol=1e-5, atol=1e-5
    )
    assert "part_oracle" in pd.read_parquet(root / "run" / "metrics.parquet")


def test_a_part_is_called_once_and_loaded_once(settings: Settings, root: Path) -> None:
    loaded = loading.load_rewards(settings, ["both", "oracle"], "cpu", calibration_of(root))
    both: Any = loaded["both"]
    assert both.members["oracle"] is loaded["oracle"]


def test_scoring_needs_the_calibration(settings: Settings, root: Path, tmp_path: Path) -> None:
    output = tmp_path / "scores.parquet"
    with pytest.raises(UserError, match="--calibration: a sum of standardized rewards needs it"):
        score_run(settings, Run("tiny", "base", 1), root / "samples", "main", output)


def test_a_sum_of_one_part_is_that_part(tiny_folder: Path, tmp_path: Path) -> None:
    """Weight 1, not standardized: the same run as with the part itself, to the bit."""
    settings = WeightedSumSettings.model_validate(
        {**SUM, "parts": {"red": 1.0}, "standardize": False}
    )
    runs = {}
    for name, reward in {"sum": WeightedSum(settings, {"red": redness}), "red": redness}.items():
        trainer = make_trainer(tiny_folder, tmp_path / name, reward=reward)
        runs[name] = trainer.iterate(1)
    for key in ("reward_mean", "loss", "gradient_norm"):
        assert runs["sum"][key] == runs["red"][key]
    assert runs["sum"]["part_red"] == runs["red"]["reward_mean"]
    assert not any(key.startswith("part_") for key in runs["red"])


def test_digests_cover_the_parts(settings: Settings) -> None:
    changed = settings.rewards | {"b": settings.rewards["b"].model_copy(update={"pool": "c"})}
    other = settings.model_copy(update={"rewards": changed})
    run = Run("tiny", "grpo", 1)
    assert other.run_digest(run) != settings.run_digest(run)
    assert score_digest(other, run, "main") != score_digest(settings, run, "main")


@pytest.fixture
def library(tmp_path: Path) -> dict[str, Any]:
    """The default configuration's values, its files copied to where some can be added."""
    import shutil

    shutil.copytree(repository_root() / "config", tmp_path / "config")
    values = config.read_yaml(tmp_path / "config" / "config.yaml")
    values["sweeps"] = {}
    values["experiments"] = {"ambiguous": values["experiments"]["ambiguous"]}
    values["experiments"]["ambiguous"]["training_reward"] = "mine"
    return values


def resolved(library: dict[str, Any], tmp_path: Path, **changes: Any) -> Settings:
    entry = {"kind": "weighted_sum", "title": "Mine", "parts": {"oracle": 1.0}, **changes}
    (tmp_path / "config" / "rewards" / "mine.yaml").write_text(yaml.safe_dump(entry))
    return config.resolve(library, tmp_path / "config")


def test_a_configuration_brings_the_parts(library: dict[str, Any], tmp_path: Path) -> None:
    parts = {"scenes_clear_a": 1, "oracle": 0.5}
    found = resolved(library, tmp_path, parts=parts)
    assert {"mine", *parts} <= set(found.rewards)
    assert found.models_of(["mine", "oracle"]) == ["oracle", "scenes_clear_a"]
    config.save_resolved(found, tmp_path / "resolved.yaml")
    assert config.load_resolved(tmp_path / "resolved.yaml") == found


def refusal(library: dict[str, Any], tmp_path: Path, **changes: Any) -> str:
    with pytest.raises(UserError) as caught:
        resolved(library, tmp_path, **changes)
    return str(caught.value)


def test_configurations_that_are_refused(library: dict[str, Any], tmp_path: Path) -> None:
    message = refusal(library, tmp_path, parts={"orcale": 1.0})
    assert "mine.yaml: parts: 'orcale' is unknown" in message
    assert "Did you mean 'oracle'?" in message
    assert "parts: 'hpsv21_clip' is a sum itself" in refusal(
        library, tmp_path, parts={"hpsv21_clip": 1.0}
    )
    assert "'hpsv2_official' runs in the environment 'hpsv2'" in refusal(
        library, tmp_path, parts={"hpsv2_official": 1.0}
    )
    assert "mine.yaml: parts" in refusal(library, tmp_path, parts={})
    library["experiments"]["ambiguous"]["diagnostics"] = ["mine"]
    assert "diagnostics: 'mine' is a sum; name its parts" in refusal(library, tmp_path)
    library["experiments"]["ambiguous"]["diagnostics"] = []
    library["experiments"]["ambiguous"]["training_reward"] = "hpsv2_official"
    assert "it can only be a judge" in refusal(library, tmp_path)


def test_older_calibrations_are_read(tmp_path: Path) -> None:
    values = {"mean": 1.0, "std": 2.0, "minimum": 0.0, "prompt_means": {"p": 1.0}}
    (tmp_path / "calibration.json").write_text(json.dumps(values))
    assert Calibration.load(tmp_path / "calibration.json").parts == {}
