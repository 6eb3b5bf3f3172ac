"""The experiments on Wan, whole, on tiny checkpoints in the published layouts.

Only paths, digests and the rewards' numbers of pixels are overridden: what runs is
`config/wan21_t2v.yaml` and `config/wan22_i2v.yaml` at their smoke scale.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from harness import REPOSITORY, Workspace, workspace_in
from PIL import Image
from published_checks import check_run, check_scores

from bpgo.config.resolve import load_resolved
from bpgo.storage.clips import read_clip

pytestmark = pytest.mark.slow
sys.path.append(str(REPOSITORY / "tests" / "fixtures"))

OVERRIDDEN = {"path", "base", "architecture", "sha256", "least_pixels", "most_pixels"}
JUDGES = {
    "videoclip_xl",
    "videoalign_ta",
    "videoalign_overall",
    "qwen3_vl_embedding",
    "hpsv21_frames",
}


@pytest.fixture(scope="module")
def overrides(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Tiny checkpoints of everything, and the `overrides` that point to them."""
    from tiny_rewards import build_tiny_hpsv2, tiny_overrides
    from tiny_video_rewards import build_tiny_video_rewards
    from tiny_wan import build_tiny_wan

    folder = tmp_path_factory.mktemp("checkpoints")
    build_tiny_hpsv2(folder / "rewards" / "hpsv2")
    rewards = build_tiny_video_rewards(folder / "rewards")
    rewards["hpsv21"] = tiny_overrides(folder / "rewards")["hpsv21"]
    wan21 = build_tiny_wan(folder / "wan21", english=True)
    wan22 = build_tiny_wan(folder / "wan22", frames=True, experts=True, english=True)
    return {
        "models": {"wan21_t2v_1_3b": {"path": str(wan21)}, "wan22_i2v_a14b": {"path": str(wan22)}},
        "rewards": {
            name: {key: value for key, value in values.items() if key in OVERRIDDEN}
            for name, values in rewards.items()
        },
    }


def run_smoke(folder: Path, name: str, overrides: dict[str, Any]) -> tuple[Workspace, Path]:
    """The workspace, and the results of `snakemake smoke --configfile config/{name}.yaml`."""
    workspace = workspace_in(folder).with_config(name)
    mine = workspace.path("mine.yaml")
    mine.write_text(yaml.safe_dump({"overrides": overrides}))
    outcome = workspace.snakemake("smoke", extra=[mine])
    assert outcome.code == 0, outcome.text
    return workspace, workspace.path(f"results/{name}/smoke")


def test_wan21_from_prompts_to_the_report(overrides: dict[str, Any], tmp_path: Path) -> None:
    _, root = run_smoke(tmp_path, "wan21_t2v", overrides)
    arms = {"grpo", "bpgo", "bpgo_ras", "bpgo_ras_alpha_0p9"}
    check_scores(root, arms, JUDGES)
    check_clips(root, arms, (9, 3, 128, 128))
    for arm in arms:
        check_run(root / "runs" / "videoclip_xl" / arm / "seed_1")
    check_report(root)
    assert "BPGO (paper)" in (root / "tables" / "main.md").read_text()
    for name, rows in {"parts": "RAS", "sweep": "0.9"}.items():
        assert f"{rows} (paper)" in (root / "tables" / f"{name}.md").read_text()


def test_wan22_from_first_frames_to_the_report(overrides: dict[str, Any], tmp_path: Path) -> None:
    """Two experts: an adapter for each."""
    _, root = run_smoke(tmp_path, "wan22_i2v", overrides)
    arms = {"grpo", "bpgo"}
    check_scores(root, arms, JUDGES)
    check_clips(root, arms, (9, 3, 128, 224))
    for arm in arms:
        folder = root / "runs" / "videoclip_xl" / arm / "seed_1"
        check_run(folder)
        second = folder / "policy" / "transformer_2" / "pytorch_lora_weights.safetensors"
        assert second.is_file()
    check_report(root)
    assert "BPGO (paper)" in (root / "tables" / "main.md").read_text()


def check_clips(root: Path, arms: set[str], shape: tuple[int, ...]) -> None:
    samples = root / "samples"
    for place in (samples / "base", *(samples / "videoclip_xl" / arm for arm in arms)):
        folder = place / "seed_1"
        for path in pd.read_parquet(folder / "index.parquet")["path"]:
            assert read_clip(folder / path).shape == shape


def check_report(root: Path) -> None:
    page = (root / "report" / "index.html").read_text()
    assert page.count("data:image/webp;base64,") == 1
    [file] = root.glob("config/*.yaml")
    with Image.open(root / "grids" / "videoclip_xl.webp") as picture:
        assert picture.n_frames == load_resolved(file).model.frames


def test_weights_that_are_not_here_are_named_before_training(tmp_path: Path) -> None:
    outcome = workspace_in(tmp_path).with_config("wan22_i2v").snakemake("smoke")
    assert outcome.code != 0
    assert "error: model 'Wan2.2-I2V-A14B'" in outcome.text
    assert "Wan-AI/Wan2.2-I2V-A14B-Diffusers" in outcome.text
    assert "Traceback" not in outcome.text
