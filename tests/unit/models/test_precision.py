"""What may change no number, and what may change it a little."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pipeline_cases import PROMPTS, STEPS, Case, Folders, disturb, images_of, noise_of, plan_of
from tiny_world import make_trainer, weights
from torch import Tensor

from bpgo.core.layout import Layout
from bpgo.core.rollout import rollout, step_log_prob
from bpgo.core.sde import transition
from bpgo.run.progress import read_lines


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("parameters", ["full", "lora"])
def test_first_ratios_are_one(parameters: str, dtype: str, model: Case, folders: Folders) -> None:
    policy = model.policy(folders(model), parameters, dtype=dtype)
    disturb(policy, 0.02)
    prompts = policy.encode_prompts(PROMPTS)
    sigmas, noise_level = policy.sigmas(STEPS), 0.7
    noise = torch.stack([noise_of(policy)] * (STEPS + 1), dim=1)
    plan = plan_of(noise, [0, 1, 2])
    drawn = rollout(
        policy, prompts, noise, sigmas, "flow", noise_level, plan, Layout(1, 3, 96), model.guidance
    )
    assert drawn.latents.dtype == drawn.log_probs.dtype == torch.float32
    for step in (0, 1, 2):
        sigma, sigma_next = sigmas[step].expand(3), sigmas[step + 1].expand(3)
        latents, following = drawn.latents[:, step], drawn.latents[:, step + 1]
        velocity = policy.velocity(latents, sigma, prompts, model.guidance)
        assert velocity.requires_grad
        moved = transition(
            "flow", velocity, latents, sigma, sigma_next, noise_level, sigma_max=sigmas[1]
        )
        ratio = (step_log_prob("flow", following, moved) - drawn.log_probs[:, step]).exp()
        assert torch.equal(ratio, torch.ones_like(ratio))


@pytest.mark.parametrize("parameters", ["full", "lora"])
def test_gradient_checkpointing_changes_no_gradient(
    parameters: str, model: Case, folders: Folders
) -> None:
    gradients, calls = [], []
    for checkpointing in (False, True):
        policy = model.policy(folders(model), parameters, gradient_checkpointing=checkpointing)
        disturb(policy)
        count: list[int] = []
        policy.transformer.transformer_blocks[0].register_forward_pre_hook(
            lambda *_, count=count: count.append(1)
        )
        prompts = policy.encode_prompts(PROMPTS)
        sigma = torch.full((3,), 0.5)
        velocity = policy.velocity(noise_of(policy), sigma, prompts, model.guidance)
        velocity.square().mean().backward()
        gradients.append({name: value.grad for name, value in policy.trainable().items()})
        calls.append(len(count))
    assert calls == [1, 2]  # run again in the backward pass
    plain, again = gradients
    assert plain.keys() == again.keys()
    for name, gradient in plain.items():
        assert gradient is not None
        assert again[name] is not None
        torch.testing.assert_close(again[name], gradient, rtol=1e-5, atol=1e-7)


def test_what_is_trained_is_float32(model: Case, folders: Folders) -> None:
    for parameters, frozen in (("full", None), ("lora", torch.bfloat16)):
        policy = model.policy(folders(model), parameters, dtype="bfloat16")
        assert {p.dtype for p in policy.trainable().values()} == {torch.float32}
        others = {p.dtype for p in policy.transformer.parameters() if not p.requires_grad}
        assert others == ({frozen} if frozen else set())
        assert policy.vae.dtype == torch.float32
    assert model.policy(folders(model), vae_dtype="bfloat16").vae.dtype == torch.bfloat16


def test_an_adapter_in_bfloat16_is_the_pipelines(
    model: Case, folders: Folders, tmp_path: Path
) -> None:
    policy = model.policy(folders(model), "lora", dtype="bfloat16")
    prompts, noise = policy.encode_prompts(PROMPTS), noise_of(policy)
    sigma = torch.full((3,), 0.5)
    with torch.no_grad():
        before = policy.velocity(noise, sigma, prompts, 1.0)
    disturb(policy)
    policy.save(tmp_path)
    pipeline = model.pipeline(folders(model)).to(torch.bfloat16)
    pipeline.load_lora_weights(tmp_path)
    with torch.no_grad():
        ours = policy.velocity(noise, sigma, prompts, 1.0)
        policy.transformer = pipeline.transformer
        assert torch.equal(policy.velocity(noise, sigma, prompts, 1.0), ours)
    assert not torch.equal(ours, before)


def test_bfloat16_stays_near(model: Case, folders: Folders) -> None:
    exact = images_of(model, model.policy(folders(model)))
    for parameters in ("full", "lora"):
        near = images_of(model, model.policy(folders(model), parameters, dtype="bfloat16"))
        assert near.dtype == torch.float32
        torch.testing.assert_close(near, exact, rtol=0, atol=0.1)


def test_decoding_in_parts(model: Case, folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    policies = [model.policy(folders(model), decode_pixels=size) for size in (10**6, 2 * 24**2, 1)]
    sizes: list[int] = []
    images = []
    for policy in policies:
        decode = policy.vae.decode

        def counted(latents: Tensor, decode: Any = decode, **options: Any) -> Any:
            sizes.append(len(latents))
            return decode(latents, **options)

        monkeypatch.setattr(policy.vae, "decode", counted)
        images.append(policy.decode(noise_of(policy)))
    assert sizes == [3, 2, 1, 1, 1, 1]
    for parts in images[1:]:
        torch.testing.assert_close(parts, images[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("parameters", ["full", "lora"])
def test_a_run_with_guidance_in_bfloat16(
    parameters: str, tiny_sd3_folder: Path, tmp_path: Path
) -> None:
    trainer = make_trainer(
        tiny_sd3_folder,
        tmp_path,
        arm="flow_grpo",  # with a KL term, so the reference is asked too
        model={"kind": "stable_diffusion_3", "dtype": "bfloat16", "lora": {"rank": 2}},
        rollout={"guidance_scale": 4.5},
        training={"parameters": parameters, "iterations": 2, "snapshot_every": 2},
    )
    before = {name: value.clone() for name, value in weights(trainer).items()}
    trainer.run()
    moved = [name for name, value in weights(trainer).items() if not value.equal(before[name])]
    assert len(moved) > len(before) / 2
    lines = read_lines(tmp_path / "metrics.jsonl")
    assert [line["ratio_deviation"] for line in lines] == [0, 0]
    # Nothing has moved before the first of two optimizer steps: there the KL term is 0.
    assert 0 < lines[0]["kl"] < 0.01
