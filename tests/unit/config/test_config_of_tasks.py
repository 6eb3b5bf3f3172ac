"""A configuration and its model: what does not fit has one message; what a digest hears."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from shipped_config import refusal

from bpgo.config import resolve as config
from bpgo.config.jobs import score_digest
from bpgo.config.runs import Run
from bpgo.config.settings import Settings


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"model": "scenes_t2v"},
            ["experiments.ambiguous: the reward 'scenes_ambiguous_a' scores images", "frame_mean"],
        ),
        (
            {"model": "scenes_t2v", "overrides": {"models": {"scenes_t2v": {"resolution": 25}}}},
            ["resolution: 25 is not allowed", "multiples of 16"],
        ),
        (
            {"model": "scenes_i2v"},
            ["prompts: they have no first frames", "i2v"],
        ),
        (
            {"overrides": {"models": {"scenes": {"frames": 9}}}},
            ["model: frames: 9 frames are for the tasks"],
        ),
        (
            {"overrides": {"arms": {"bpgo": {"trust": {"prior": "first_frame"}}}}},
            ["arms.bpgo.trust.prior: 'first_frame' is for image to video", "task t2i"],
        ),
    ],
)
def test_what_does_not_fit_the_models_task(
    changes: Any, words: list[str], values: dict[str, Any], folder: Path
) -> None:
    message = refusal({**values, **changes}, folder)
    assert all(word in message for word in ["my.yaml", *words]), message


def test_two_guidance_scales_are_for_two_experts(values: dict[str, Any], folder: Path) -> None:
    message = refusal(
        {**values, "rollout": {**values["rollout"], "guidance_scale": [4.0, 3.0]}}, folder
    )
    assert "rollout.guidance_scale: [4.0, 3.0] is for two experts" in message


def test_the_papers_numbers_are_of_the_models_task(values: dict[str, Any], folder: Path) -> None:
    paper = {"table": "table1", "task": "T2V", "metrics": {"scenes_clear_a": "VideoCLIP-XL"}}
    values["experiments"]["clear"]["paper"] = paper
    message = refusal(values, folder)
    assert "my.yaml: experiments.clear.paper: table1 and 'T2V'" in message
    assert "t2i: that is table2, 'T2I (FLUX)'" in message


def test_noise_levels_of_judging_train_nothing_again(values: dict[str, Any], folder: Path) -> None:
    def resolved(**model: Any) -> Settings:
        return config.resolve(values | {"overrides": {"models": {"scenes": model}}}, folder)

    def run(settings: Settings) -> str:
        return settings.run_digest(Run("ambiguous", "grpo", 1))

    def score(settings: Settings) -> str:
        return score_digest(settings, Run("ambiguous", "grpo", 1), "main")

    before = resolved()
    judged = resolved(evaluation_schedule="static", evaluation_flow_shift=3.0)
    assert run(judged) == run(before)
    assert score(judged) != score(before)
    assert run(resolved(schedule="static", flow_shift=3.0)) != run(before)


def test_a_kernel_that_cannot_take_the_first_noise_level(
    values: dict[str, Any], folder: Path
) -> None:
    values["overrides"] = {"models": {"scenes": {"schedule": "unipc_0_36"}}}
    values["experiments"]["ambiguous"]["arms"].append("flow_grpo")
    message = refusal(values, folder)
    assert "arms.flow_grpo.kernel: flow" in message
    assert "unipc_0_36" in message
    values["experiments"]["ambiguous"]["arms"].remove("flow_grpo")
    config.resolve(values, folder)  # the other arms have the kernel dance


def test_a_first_frame_that_cannot_be_taken(folder: Path) -> None:
    """It is read when the configuration is, not when the first run has been started."""
    file = folder / "wan22_i2v.yaml"
    config.load(file)
    values = config.read_yaml(file)
    for name in config.WORKFLOW_OPTIONS:
        values.pop(name, None)
    mine = {"path": str(folder / "prompts" / "starter_i2v" / "prompts.tsv")}
    values["overrides"]["prompts"] = {"starter_i2v": {"files": {"starter": mine}}}
    config.resolve(values, folder)
    road = folder / "prompts" / "starter_i2v" / "road.jpg"
    road.write_bytes(road.read_bytes()[:1000])
    assert f"{road}: cannot be read as an image" in refusal(values, folder)
