"""What every whole experiment on a published model's tiny checkpoint must leave behind."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from bpgo.storage.files import read_json


def check_scores(root: Path, arms: set[str], judges: set[str]) -> None:
    """Of every arm and the untrained policy by every judge."""
    scores = pd.read_parquet(root / "collected" / "scores.parquet")
    assert set(scores["arm"]) == arms | {"base"}
    assert set(scores["reward"]) == judges
    final = scores[(scores["iteration"] == 2) | (scores["arm"] == "base")]
    assert (final.groupby(["arm", "reward"], observed=True).size() == 4).all(), "4 prompts"
    spread = scores.groupby("reward", observed=True)["score"].std()
    assert (spread > 0).all(), "a reward that judges all samples alike judges nothing"


def check_run(folder: Path) -> None:
    """A LoRA in the layout that the pipelines load, and first ratios within the tolerance."""
    assert read_json(folder / "manifest.json")["config_digest"]
    assert (folder / "policy" / "pytorch_lora_weights.safetensors").is_file()
    metrics = pd.read_parquet(folder / "metrics.parquet")
    assert len(metrics) == 2
    assert (metrics["ratio_deviation"] <= 1e-3).all()
    assert (metrics["gradient_norm"] > 0).all()
