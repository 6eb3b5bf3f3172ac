"""The experiments on published models, whole, on tiny checkpoints in the published layouts.

Only paths are overridden, and Stable Diffusion 3.5 has one arm: what runs is `config/flux_t2i.yaml`
and `config/sd35_t2i.yaml` at their smoke scale.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import REPOSITORY, workspace_in
from published_checks import check_run, check_scores

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


def test_flux_from_prompts_to_the_report(paths: dict[str, Any], tmp_path: Path) -> None:
    workspace = workspace_in(tmp_path)
    mine = workspace.path("mine.yaml")
    mine.write_text(yaml.safe_dump({"overrides": paths}))
    outcome = workspace.with_config("flux_t2i").snakemake("smoke", extra=[mine])
    assert outcome.code == 0, outcome.text
    root = workspace.path("results/flux_t2i/smoke")
    check_scores(root, {"grpo", "bpgo"}, JUDGES)
    for arm in ("grpo", "bpgo"):
        check_run(root / "runs" / "hpsv2" / arm / "seed_1")
    assert "BPGO (paper)" in (root / "tables" / "main.md").read_text()
    assert (root / "report" / "index.html").stat().st_size > 10_000
    assert list((root / "figures").glob("*.png"))
    assert (root / "grids" / "hpsv2.png").stat().st_size > 1_000


def test_stable_diffusion_3_from_prompts_to_the_tables(
    paths: dict[str, Any], tmp_path: Path
) -> None:
    """One arm, the one that compares with the policy without its adapter at each step.

    The figures, grids and report read the same files whatever the model: FLUX makes them.
    """
    workspace = workspace_in(tmp_path)
    one_arm = {"experiments": {"pickscore": {"arms": ["flow_grpo"]}}}
    mine = workspace.path("mine.yaml")
    mine.write_text(yaml.safe_dump({"overrides": paths, "smoke": one_arm}))
    main = "results/sd35_t2i/smoke/tables/main.csv"
    outcome = workspace.with_config("sd35_t2i").snakemake(main, extra=[mine])
    assert outcome.code == 0, outcome.text
    root = workspace.path("results/sd35_t2i/smoke")
    check_scores(root, {"flow_grpo"}, JUDGES)
    check_run(root / "runs" / "pickscore" / "flow_grpo" / "seed_1")
    assert "BPGO (paper)" not in workspace.path(main).with_suffix(".md").read_text()


def test_the_full_scale_is_planned(paths: dict[str, Any], tmp_path: Path) -> None:
    workspace = workspace_in(tmp_path)
    mine = workspace.path("mine.yaml")
    mine.write_text(yaml.safe_dump({"overrides": paths}))
    plan = workspace.with_config("flux_t2i").snakemake("--dry-run", extra=[mine])
    assert plan.code == 0, plan.text
    jobs = plan.jobs()
    assert (jobs["train"], jobs["sample"], jobs["score"]) == (15, 15, 18)
    assert jobs["sample_base"] == 3


def test_weights_that_are_not_here_are_named_before_training(tmp_path: Path) -> None:
    workspace = workspace_in(tmp_path)
    outcome = workspace.with_config("flux_t2i").snakemake("smoke")
    assert outcome.code != 0
    assert "error: model 'FLUX.1-dev'" in outcome.text
    assert "black-forest-labs/FLUX.1-dev" in outcome.text
    assert "Traceback" not in outcome.text
