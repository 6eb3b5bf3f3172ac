"""The experiments on published models, whole, on tiny checkpoints in the published layouts.

Only paths are overridden: what runs is `config/flux_t2i.yaml` and `config/sd35_t2i.yaml` at their
smoke scale, from prompts to the report.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from harness import REPOSITORY, workspace_in

from bpgo.files import read_json

pytestmark = pytest.mark.slow
sys.path.append(str(REPOSITORY / "tests" / "fixtures"))

JUDGES = {"hpsv21", "pickscore", "image_reward", "clip_score", "aesthetic"}


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Tiny checkpoints of everything, and the `overrides` that point to them."""
    from tiny_image_reward import build_tiny_image_reward, image_reward_overrides
    from tiny_models import build_tiny_flux, build_tiny_sd3
    from tiny_rewards import build_tiny_rewards

    folder = tmp_path_factory.mktemp("checkpoints")
    flux = build_tiny_flux(
        folder / "flux", guidance=True, english=True, use_dynamic_shifting=True, shift=3.0
    )
    sd3 = build_tiny_sd3(folder / "sd3", english=True)
    rewards = build_tiny_rewards(folder / "rewards")
    image_reward = build_tiny_image_reward(folder / "image_reward")
    rewards["image_reward"] = image_reward_overrides(image_reward)
    return {
        "models": {"flux1_dev": {"path": str(flux)}, "sd35_medium": {"path": str(sd3)}},
        "rewards": rewards,
    }


@pytest.mark.parametrize(("name", "experiment"), [("flux_t2i", "hpsv2"), ("sd35_t2i", "pickscore")])
def test_from_prompts_to_the_report(
    name: str, experiment: str, paths: dict[str, Any], tmp_path: Path
) -> None:
    workspace = workspace_in(tmp_path)
    mine = workspace.path("mine.yaml")
    mine.write_text(yaml.safe_dump({"overrides": paths}))
    outcome = workspace.with_config(name).snakemake("smoke", extra=[mine])
    assert outcome.code == 0, outcome.text
    root = workspace.path(f"results/{name}/smoke")
    arms = {"flux_t2i": {"grpo", "bpgo"}, "sd35_t2i": {"flow_grpo", "bpgo"}}[name]
    check_scores(pd.read_parquet(root / "collected" / "scores.parquet"), arms)
    for arm in arms:
        check_run(root / "runs" / experiment / arm / "seed_1")
    main = (root / "tables" / "main.md").read_text()
    assert ("BPGO (paper)" in main) == (name == "flux_t2i")
    assert (root / "report" / "index.html").stat().st_size > 10_000
    assert list((root / "figures").glob("*.png"))
    assert (root / "grids" / f"{experiment}.png").stat().st_size > 1_000


def check_scores(scores: pd.DataFrame, arms: set[str]) -> None:
    assert set(scores["arm"]) == arms | {"base"}
    assert set(scores["reward"]) == JUDGES
    final = scores[(scores["iteration"] == 2) | (scores["arm"] == "base")]
    assert (final.groupby(["arm", "reward"], observed=True).size() == 4).all(), "4 prompts"
    spread = scores.groupby("reward", observed=True)["score"].std()
    assert (spread > 0).all(), "a reward that judges all images alike judges nothing"


def check_run(folder: Path) -> None:
    """A LoRA in the layout that the pipelines load, and first ratios within the tolerance."""
    assert read_json(folder / "manifest.json")["config_digest"]
    assert (folder / "policy" / "pytorch_lora_weights.safetensors").is_file()
    metrics = pd.read_parquet(folder / "metrics.parquet")
    assert len(metrics) == 2
    assert (metrics["ratio_deviation"] <= 1e-3).all()
    assert (metrics["gradient_norm"] > 0).all()


def test_the_full_scale_is_planned(paths: dict[str, Any], tmp_path: Path) -> None:
    workspace = workspace_in(tmp_path)
    mine = workspace.path("mine.yaml")
    mine.write_text(yaml.safe_dump({"overrides": paths}))
    plan = workspace.with_config("flux_t2i").snakemake("--dry-run", extra=[mine])
    assert plan.code == 0, plan.text
    jobs = plan.jobs()
    assert (jobs["train"], jobs["sample"], jobs["score"]) == (15, 18, 18)


def test_weights_that_are_not_here_are_named_before_training(tmp_path: Path) -> None:
    workspace = workspace_in(tmp_path)
    outcome = workspace.with_config("flux_t2i").snakemake("smoke")
    assert outcome.code != 0
    assert "error: model 'FLUX.1-dev'" in outcome.text
    assert "black-forest-labs/FLUX.1-dev" in outcome.text
    assert "Traceback" not in outcome.text
