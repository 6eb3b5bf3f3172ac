"""Wan in training: the same numbers in rollout and update, in any dtype, with less memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pipeline_cases import disturb, plan_of
from wan_cases import (
    STEPS,
    T2V,
    TI2V,
    TWO_I2V,
    WanCase,
    WanFolders,
    clips_of,
    wan_embeddings,
    wan_noise,
)
from wan_world import make_wan_trainer

from bpgo.core.layout import Layout
from bpgo.core.rollout import rollout, step_log_prob
from bpgo.core.sde import transition
from bpgo.run.progress import read_lines

RUNS = [(T2V, "full"), (T2V, "lora"), (TI2V, "lora"), (TWO_I2V, "lora")]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("case", "parameters"), RUNS)
def test_first_ratios_are_one(
    case: WanCase,
    parameters: str,
    dtype: str,
    wan_folders: WanFolders,
    first_frames: list[Path],
) -> None:
    policy = case.policy(wan_folders(case), parameters, dtype=dtype)
    disturb(policy, 0.02)
    prompts = wan_embeddings(case, policy, first_frames).to(policy.device, policy.dtype)
    sigmas, noise_level = policy.sigmas(STEPS), 0.7
    noise = torch.stack([wan_noise(policy)] * (STEPS + 1), dim=1)
    plan = plan_of(noise, [0, 1, 2])
    drawn = rollout(
        policy, prompts, noise, sigmas, "flow", noise_level, plan, Layout(1, 3, 96), case.guidance
    )
    assert drawn.latents.isfinite().all()
    for step in (0, 1, 2):
        latents, following = drawn.latents[:, step], drawn.latents[:, step + 1]
        sigma = sigmas[step].expand(3)
        velocity = policy.velocity(latents, sigma, prompts, case.guidance)
        assert velocity.requires_grad
        moved = transition("flow", velocity, latents, sigma, sigmas[step + 1], noise_level)
        ratio = (step_log_prob("flow", following, moved) - drawn.log_probs[:, step]).exp()
        assert torch.equal(ratio, torch.ones_like(ratio))


@pytest.mark.parametrize(("case", "parameters"), [RUNS[0], RUNS[2]])
def test_bfloat16_stays_near(
    case: WanCase, parameters: str, wan_folders: WanFolders, first_frames: list[Path]
) -> None:
    exact = clips_of(case, case.policy(wan_folders(case)), first_frames)
    policy = case.policy(wan_folders(case), parameters, dtype="bfloat16")
    assert {value.dtype for value in policy.trainable().values()} == {torch.float32}
    near = clips_of(case, policy, first_frames)
    torch.testing.assert_close(near, exact, rtol=0, atol=0.1)
    if case is TI2V:  # the first latents are given, and keep their precision
        torch.testing.assert_close(near[:, 0], exact[:, 0], rtol=0, atol=1e-4)


def test_gradient_checkpointing_changes_no_gradient(wan_folders: WanFolders) -> None:
    gradients: list[dict[str, Any]] = []
    calls = []
    for checkpointing in (False, True):
        policy = T2V.policy(wan_folders(T2V), gradient_checkpointing=checkpointing)
        disturb(policy)
        count: list[int] = []
        policy.transformer.blocks[0].register_forward_pre_hook(
            lambda *_, count=count: count.append(1)
        )
        prompts = policy.encode_prompts(["a", "b", "c"])
        velocity = policy.velocity(wan_noise(policy), torch.full((3,), 0.5), prompts, 3.0)
        velocity.square().mean().backward()
        gradients.append({name: value.grad for name, value in policy.trainable().items()})
        calls.append(len(count))
    assert calls == [1, 2]  # run again in the backward pass
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-5, atol=1e-7)


def test_a_run_from_first_frames(
    wan_folders: WanFolders, first_frames: list[Path], tmp_path: Path
) -> None:
    trainer = make_wan_trainer(
        TI2V, wan_folders(TI2V), tmp_path, first_frames=first_frames, dtype="bfloat16"
    )
    trainer.run()
    lines = read_lines(tmp_path / "metrics.jsonl")
    assert [line["ratio_deviation"] for line in lines] == [0, 0]
    assert any(value.abs().max() > 0 for value in trainer.parameters.values())
