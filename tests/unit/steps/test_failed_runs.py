"""A run that diverges is recorded with its reason, and the steps after it go on without it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from calibrated import draw_calibrate_judge
from tiny_world import tiny_settings

from bpgo.config.runs import Run
from bpgo.config.settings import Settings
from bpgo.errors import NonFiniteError
from bpgo.steps.prompts import write_prompts
from bpgo.steps.sample import sample_run
from bpgo.steps.score import score_run
from bpgo.steps.train import train
from bpgo.storage.files import read_json

RUN = Run("tiny", "grpo", 1)


def settings_at(tiny_folder: Path, rate: float) -> Settings:
    experiment = tiny_settings(tiny_folder).experiments["tiny"].model_dump()
    training = {"learning_rate": rate, "checkpoint_every": 1, "optimizer_steps": 2}
    return tiny_settings(tiny_folder, experiments={"tiny": experiment}, training=training)


@pytest.fixture
def root(tiny_folder: Path, tmp_path: Path) -> Path:
    """Prompts and calibration."""
    settings = settings_at(tiny_folder, 1e30)
    for split in ("train", "evaluation"):
        write_prompts(settings, split, tmp_path / "prompts" / f"{split}.jsonl")
    prompts = tmp_path / "prompts" / "train.jsonl"
    draw_calibrate_judge(settings, "tiny", prompts, tmp_path / "calibration")
    return tmp_path


def trained(settings: Settings, root: Path, record: bool) -> Path:
    train(
        settings,
        RUN,
        root / "prompts" / "train.jsonl",
        root / "calibration" / "calibration.json",
        root / "run",
        record=record,
    )
    return root / "run"


def test_without_being_asked_for_it_is_an_error(tiny_folder: Path, root: Path) -> None:
    with pytest.raises(NonFiniteError):
        trained(settings_at(tiny_folder, 1e30), root, record=False)
    assert not (root / "run" / "manifest.json").exists()


def test_a_recorded_failure_has_its_reason_and_no_scores(tiny_folder: Path, root: Path) -> None:
    settings = settings_at(tiny_folder, 1e30)
    folder = trained(settings, root, record=True)
    manifest = read_json(folder / "manifest.json")
    assert manifest["config_digest"] == settings.run_digest(RUN)
    assert "nan" in manifest["failed"]
    assert not (folder / "policy").exists()
    done = len(pd.read_parquet(folder / "metrics.parquet"))
    assert done < settings.training.iterations
    sample_run(settings, RUN, root / "prompts" / "evaluation.jsonl", folder, root / "samples")
    assert pd.read_parquet(root / "samples" / "index.parquet").empty
    score_run(settings, RUN, root / "samples", "main", root / "scores.parquet")
    assert pd.read_parquet(root / "scores.parquet").empty


def test_with_other_settings_it_starts_over(tiny_folder: Path, root: Path) -> None:
    trained(settings_at(tiny_folder, 1e30), root, record=True)
    assert (root / "run" / "state").is_dir()
    folder = trained(settings_at(tiny_folder, 1e-3), root, record=True)
    assert "failed" not in read_json(folder / "manifest.json")
    assert pd.read_parquet(folder / "metrics.parquet").iteration.tolist() == [1, 2, 3, 4]
