"""Guidance whose empty prompt's half has no gradient: the same velocities, the other gradient."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pipeline_cases import FLUX, SD3, STEPS, Case, Folders, disturb
from torch import Tensor
from wan_cases import T2V, TI2V, TWO_T2V, WanCase, WanFolders, wan_embeddings
from wan_world import make_wan_trainer

from bpgo.core.sde import Transition, log_prob, transition
from bpgo.errors import UserError
from bpgo.interfaces import Guidance, PromptEmbeddings
from bpgo.run.progress import read_lines
from bpgo.seeding import generator

CONDITIONAL = {"guidance_gradient": "conditional"}
CASES = {"sd3": SD3, "wan": T2V, "wan from a first frame": TI2V, "wan, two experts": TWO_T2V}
RUNS = [(name, "lora") for name in CASES] + [("sd3", "full"), ("wan", "full")]
Made = tuple[Any, PromptEmbeddings, Guidance]
Make = Callable[..., Made]


@pytest.fixture
def make(folders: Folders, wan_folders: WanFolders, first_frames: list[Path]) -> Make:
    """A policy, moved a little, with embeddings of three prompts and its guidance scale."""

    def call(name: str, parameters: str = "lora", **changes: Any) -> Made:
        case: Case | WanCase = CASES[name]
        folder = folders(case) if isinstance(case, Case) else wan_folders(case)
        policy = case.policy(folder, parameters, **changes)
        disturb(policy, 0.02)
        if isinstance(case, Case):
            prompts = policy.encode_prompts(["a", "an astronaut", "two cats"])
        else:
            prompts = wan_embeddings(case, policy, first_frames)
        return policy, prompts.to(policy.device, policy.dtype), case.guidance

    return call


def noise_of(policy: Any) -> Tensor:
    return torch.randn(3, *policy.latent_shape, generator=generator(1, "latents"))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("name", "parameters"), RUNS)
def test_first_ratios_are_one(name: str, parameters: str, dtype: str, make: Make) -> None:
    policy, prompts, guidance = make(name, parameters, dtype=dtype, **CONDITIONAL)
    sigmas, latents = policy.sigmas(STEPS), noise_of(policy)

    def move(step: int) -> Transition:
        velocity = policy.velocity(latents, sigmas[step].expand(3), prompts, guidance)
        assert velocity.requires_grad == torch.is_grad_enabled()
        return transition("dance", velocity, latents, sigmas[step], sigmas[step + 1], 0.5)

    for step in (0, 1, 2):
        with torch.no_grad():  # the rollout
            drawn = move(step)
            following = drawn.sample(noise_of(policy))
            before = log_prob(following, drawn.mean, drawn.std)
        now = move(step)  # the update
        ratio = (log_prob(following, now.mean, now.std) - before).exp()
        assert torch.equal(ratio, torch.ones_like(ratio))
        latents = following


def gradients(made: Made, scale: float, factor: float) -> dict[str, Tensor]:
    """Of `factor` times the velocity along a fixed direction."""
    policy, prompts, _ = made
    velocity = policy.velocity(noise_of(policy), torch.tensor([0.9, 0.5, 0.1]), prompts, scale)
    direction = torch.randn(velocity.shape, generator=generator(2, "direction"))
    found = torch.autograd.grad((factor * velocity * direction).sum(), policy.trainable().values())
    return dict(zip(policy.trainable(), found, strict=True))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("name", "parameters"), RUNS)
def test_the_gradient_is_the_conditional_parts(
    name: str, parameters: str, dtype: str, make: Make
) -> None:
    """v = e + 4 (c - e) with e constant; a power of two scales without rounding."""
    options: dict[str, Any] = {"parameters": parameters, "dtype": dtype}
    found = gradients(make(name, **options, **CONDITIONAL), scale=4.0, factor=1.0)
    expected = gradients(make(name, **options), scale=1.0, factor=4.0)
    both = gradients(make(name, **options), scale=4.0, factor=1.0)
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert any(value.any() for value in found.values())
    assert not all(torch.allclose(found[key], both[key], rtol=1e-2) for key in both)


@pytest.mark.parametrize("name", CASES)
def test_velocities_are_those_of_one_doubled_batch(name: str, make: Make) -> None:
    sigma = torch.full((3,), 0.5)
    found = []
    for changes in ({}, CONDITIONAL):
        policy, prompts, guidance = make(name, **changes)
        sizes: list[int] = []
        for expert in (
            policy.experts.both if getattr(policy, "experts", None) else [policy.transformer]
        ):
            expert.register_forward_pre_hook(
                lambda _module, _args, kwargs, sizes=sizes: sizes.append(
                    len(kwargs["hidden_states"])
                ),
                with_kwargs=True,
            )
        velocity = policy.velocity(noise_of(policy), sigma, prompts, guidance)
        with torch.no_grad():
            again = policy.velocity(noise_of(policy), sigma, prompts, guidance)
        assert torch.equal(again, velocity)
        assert sizes == ([3, 3] * 2 if changes else [6] * 2)
        plain = policy.velocity(noise_of(policy), sigma, prompts, 1.0)
        assert sizes[-1] == 3
        assert not torch.allclose(plain, velocity)
        found.append(velocity)
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-5)


def test_a_run_has_ratios_of_one(wan_folders: WanFolders, tmp_path: Path) -> None:
    trainer = make_wan_trainer(T2V, wan_folders(T2V), tmp_path, guidance=3.0, **CONDITIONAL)
    before = {name: value.clone() for name, value in trainer.parameters.items()}
    trainer.run()
    lines = read_lines(tmp_path / "metrics.jsonl")
    assert [line["ratio_deviation"] for line in lines] == [0, 0]
    assert not all(torch.equal(value, before[name]) for name, value in trainer.parameters.items())


def test_it_is_refused_where_guidance_is_no_second_pass(folders: Folders) -> None:
    message = "model 'tiny': guidance_gradient: conditional: guidance of a model of kind 'flux' is"
    with pytest.raises(UserError, match=message):
        FLUX.policy(folders(FLUX), **CONDITIONAL)
