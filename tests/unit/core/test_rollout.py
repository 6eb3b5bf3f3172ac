"""Samplers: what a trajectory holds, what it depends on, and that the ODE one is diffusers' own."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_world import CAPTIONS, TOKENS, random_embeddings, tiny_policy
from torch import Tensor

from bpgo.core.alike import alike_rows
from bpgo.core.layout import Layout
from bpgo.core.rollout import chunks, initial_noise, rollout, rollout_noise, sample
from bpgo.models.flux import FluxPolicy
from bpgo.records import Plan, Rollout

STEPS, GROUP = 4, 3
PROMPTS = ["p0", "p1"]
BATCH = GROUP * len(PROMPTS)


@pytest.fixture(scope="module")
def policy(tiny_folder: Path) -> FluxPolicy:
    return tiny_policy(tiny_folder)


def noise_of(policy: FluxPolicy, prompts: list[str] = PROMPTS, **changes: Any) -> Tensor:
    own = torch.arange(changes.pop("group_size", GROUP))[:, None].repeat(len(prompts), STEPS + 1)
    if changes.pop("shared_initial_noise", False):
        own[:, 0] = 0
    options = {"seed": 1, "iteration": 1, "noise_of": own}
    return rollout_noise(policy.latent_shape, STEPS, prompt_ids=prompts, **(options | changes))


def plan_of(stochastic_steps: list[int], noise_scale: Tensor | None = None) -> Plan:
    noisy = torch.zeros(BATCH, STEPS, dtype=torch.bool)
    noisy[:, stochastic_steps] = True
    nothing = torch.zeros(BATCH, 0, dtype=torch.long)
    return Plan(noisy, nothing, nothing, noise_scale)


def drawn(policy: FluxPolicy, noise: Tensor, kernel: str = "dance", **changes: Any) -> Rollout:
    prompts = random_embeddings(len(PROMPTS)).select(torch.arange(2).repeat_interleave(GROUP))
    plan = changes.pop("plan", None) or plan_of(changes.pop("stochastic_steps", [0, 1, 2]))
    layout = changes.pop("layout", None) or Layout(1, BATCH, changes.pop("batch_size", 96))
    options: dict[str, Any] = {"plan": plan, "noise_level": 0.6, "layout": layout}
    return rollout(policy, prompts, noise, policy.sigmas(STEPS), kernel, **(options | changes))


@pytest.mark.parametrize("kernel", ["flow", "dance", "cps", "ddim", "wan"])
def test_shapes(kernel: str, policy: FluxPolicy) -> None:
    found = drawn(policy, noise_of(policy), kernel)
    assert found.latents.shape == (BATCH, STEPS + 1, *policy.latent_shape)
    assert found.log_probs.shape == (BATCH, STEPS)
    for values in (found.latents, found.log_probs):
        assert values.dtype == torch.float32
        assert values.isfinite().all()
        assert not values.requires_grad


def test_trajectories_start_at_their_noise(policy: FluxPolicy) -> None:
    noise = noise_of(policy)
    assert torch.equal(drawn(policy, noise).latents[:, 0], noise[:, 0])


def test_exactly_repeatable(policy: FluxPolicy) -> None:
    first, second = (drawn(policy, noise_of(policy)) for _ in range(2))
    for name in ("latents", "log_probs"):
        assert torch.equal(getattr(first, name), getattr(second, name))


@pytest.mark.parametrize("size", [1, 2, 4, 5])
def test_chunks_change_nothing_beyond_rounding(size: int, policy: FluxPolicy) -> None:
    whole, parts = (drawn(policy, noise_of(policy), batch_size=n) for n in (96, size))
    torch.testing.assert_close(parts.latents, whole.latents, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(parts.log_probs, whole.log_probs, rtol=1e-5, atol=1e-5)


def test_noise_depends_on_names_only(policy: FluxPolicy) -> None:
    noise = noise_of(policy).unflatten(0, (2, GROUP))
    assert torch.equal(noise_of(policy, ["p1"]), noise[1])
    assert torch.equal(noise_of(policy, ["p1", "p0"]).unflatten(0, (2, GROUP)), noise.flip(0))
    larger = noise_of(policy, group_size=GROUP + 2).unflatten(0, (2, GROUP + 2))
    assert torch.equal(larger[:, :GROUP], noise)
    for change in ({"seed": 2}, {"iteration": 2}):
        assert not torch.isclose(noise_of(policy, **change), noise.flatten(0, 1)).any(1).all()


def test_a_group_may_share_its_start(policy: FluxPolicy) -> None:
    apart = noise_of(policy).unflatten(0, (2, GROUP))
    shared = noise_of(policy, shared_initial_noise=True).unflatten(0, (2, GROUP))
    assert torch.equal(shared[:, :, 0], apart[:, :1, 0].expand(-1, GROUP, -1, -1))
    assert torch.equal(shared[:, :, 1:], apart[:, :, 1:])
    assert not torch.equal(shared[0, 0, 0], shared[1, 0, 0])
    assert not torch.equal(apart[0, 0, 0], apart[0, 1, 0])


def test_steps_without_noise(policy: FluxPolicy) -> None:
    found = drawn(policy, noise_of(policy), stochastic_steps=[1])
    assert torch.equal(found.log_probs[:, [0, 2, 3]], torch.zeros(BATCH, 3))
    assert (found.log_probs[:, 1] != 0).all()
    prompts = random_embeddings(2).select(torch.arange(2).repeat_interleave(GROUP))
    with torch.no_grad():
        velocity = policy.velocity(found.latents[:, 2], found.sigmas[2].expand(BATCH), prompts, 1.0)
    euler = found.latents[:, 2] + (found.sigmas[3] - found.sigmas[2]) * velocity
    torch.testing.assert_close(found.latents[:, 3], euler, rtol=1e-6, atol=1e-6)


def test_each_sample_may_have_its_own_stochastic_steps(policy: FluxPolicy) -> None:
    noise = noise_of(policy)
    plan = plan_of([])
    plan.stochastic[0, 1] = plan.stochastic[4, 2] = True
    mixed = drawn(policy, noise, plan=plan)
    for row, step in ((0, 1), (4, 2)):
        alone = drawn(policy, noise, stochastic_steps=[step])
        assert torch.equal(mixed.latents[row], alone.latents[row])
        assert torch.equal(mixed.log_probs[row], alone.log_probs[row])
    ode = drawn(policy, noise, stochastic_steps=[])
    assert torch.equal(mixed.latents[[1, 2, 3, 5]], ode.latents[[1, 2, 3, 5]])
    assert not mixed.log_probs[[1, 2, 3, 5]].any()


def test_samples_that_share_their_noise_are_one_path(policy: FluxPolicy) -> None:
    """Until they part: the second has the first's noise up to step 1."""
    whose = torch.arange(GROUP)[:, None].repeat(len(PROMPTS), STEPS + 1)
    whose[1, :2] = 0
    found = drawn(policy, noise_of(policy, noise_of=whose))
    assert torch.equal(found.latents[0, :2], found.latents[1, :2])
    assert not torch.isclose(found.latents[0, 2:], found.latents[1, 2:]).all(2).any()


def test_louder_noise_moves_further_under_the_same_density(policy: FluxPolicy) -> None:
    noise = noise_of(policy)
    scale = torch.tensor([3.0, 1.0, 1.0, 1.0])
    plain, loud = drawn(policy, noise), drawn(policy, noise, plan=plan_of([0, 1, 2], scale))
    std = 0.6 * math.sqrt(float(plain.sigmas[0] - plain.sigmas[1]))
    torch.testing.assert_close(
        loud.latents[:, 1] - plain.latents[:, 1], 2 * std * noise[:, 1], rtol=1e-4, atol=1e-5
    )
    squared = 9 * noise[:, 1].square().flatten(1).mean(1)
    expected = -squared / 2 - math.log(std) - 0.5 * math.log(2 * math.pi)
    torch.testing.assert_close(loud.log_probs[:, 0], expected, rtol=1e-4, atol=1e-4)


def test_log_probs_by_site_add_up(policy: FluxPolicy) -> None:
    """Over channels they are summed, where the usual ones are averaged over everything."""
    noise = noise_of(policy)
    usual, sites = drawn(policy, noise), drawn(policy, noise, channel=policy.channel_dimension)
    tokens, channels = policy.latent_shape
    assert sites.log_probs.shape == (BATCH, STEPS, tokens)
    torch.testing.assert_close(
        sites.log_probs.mean(2) / channels, usual.log_probs, rtol=1e-5, atol=1e-5
    )


def test_passes_in_any_order_come_back_in_order(policy: FluxPolicy) -> None:
    layout = Layout(2, GROUP, 3, optimizer_steps=2, same_rows=True)
    assert [one.rows.tolist() for one in layout.at_step(0)] == [[0, 1, 3], [4], [2, 5]]
    found, whole = drawn(policy, noise_of(policy), layout=layout), drawn(policy, noise_of(policy))
    torch.testing.assert_close(found.latents, whole.latents, rtol=1e-5, atol=1e-5)


def test_samples_that_are_still_alike_are_computed_once(
    policy: FluxPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both groups share their start; the second's samples 1 and 2 are one path for a step more."""
    whose = torch.arange(GROUP)[:, None].repeat(len(PROMPTS), STEPS + 1)
    whose[:, 0] = 0
    whose[5, 1] = 1
    plan = replace(plan_of([0, 1, 2]), noise_of=whose)
    noise = noise_of(policy, noise_of=whose)
    apart = drawn(policy, noise, plan=plan)
    calls: list[int] = []
    velocity = policy.velocity

    def counted(latents: Tensor, *rest: Any) -> Tensor:
        calls.append(len(latents))
        return velocity(latents, *rest)

    monkeypatch.setattr(policy, "velocity", counted)
    layout = Layout(2, GROUP, 96, alike=alike_rows(plan, GROUP), same_rows=True)
    once = drawn(policy, noise, plan=plan, layout=layout)
    assert calls == [2, 5, 6, 6]
    torch.testing.assert_close(once.latents, apart.latents, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(once.log_probs, apart.log_probs, rtol=1e-5, atol=1e-5)
    assert torch.equal(once.latents[4, 1], once.latents[5, 1])


def test_log_prob_is_the_density_of_the_noise_drawn(policy: FluxPolicy) -> None:
    noise = noise_of(policy)
    found = drawn(policy, noise)
    for step in (0, 1, 2):
        std = 0.6 * math.sqrt(float(found.sigmas[step] - found.sigmas[step + 1]))
        squared = noise[:, step + 1].square().flatten(1).mean(1)
        expected = -squared / 2 - math.log(std) - 0.5 * math.log(2 * math.pi)
        torch.testing.assert_close(found.log_probs[:, step], expected, rtol=1e-4, atol=1e-4)


def test_without_noise_the_rollout_is_the_evaluation_sampler(policy: FluxPolicy) -> None:
    noise = noise_of(policy)
    prompts = random_embeddings(2).select(torch.arange(2).repeat_interleave(GROUP))
    (images,) = sample(policy, prompts, noise[:, 0], policy.sigmas(STEPS))
    torch.testing.assert_close(
        policy.decode(drawn(policy, noise, stochastic_steps=[]).latents[:, -1]),
        images,
        rtol=1e-5,
        atol=1e-5,
    )


def test_evaluation_noise_pairs() -> None:
    names = [("p0", 0), ("p0", 1), ("p1", 0)]
    noise = initial_noise((9, 16), 1, "evaluation", names)
    assert noise.shape == (3, 9, 16)
    assert torch.equal(initial_noise((9, 16), 1, "evaluation", names[::-1]), noise.flip(0))
    assert not torch.equal(initial_noise((9, 16), 2, "evaluation", names), noise)
    assert not torch.equal(initial_noise((9, 16), 1, "other", names), noise)


def test_chunks_cover_all_rows_in_order() -> None:
    rows = list(range(10))
    for size in (1, 3, 10, 96):
        parts = chunks(10, size)
        assert [row for part in parts for row in rows[part]] == rows
        assert all(part.stop - part.start <= size for part in parts)
    assert chunks(0, 4) == []


@pytest.mark.parametrize("steps", [1, 3, 8])
@pytest.mark.parametrize("kind", ["plain", "guided"])
def test_evaluation_sampler_is_the_flux_pipeline(
    kind: str, steps: int, tiny_folder: Path, tiny_guided_folder: Path
) -> None:
    from diffusers import FluxPipeline

    folder, guidance = (tiny_folder, 1.0) if kind == "plain" else (tiny_guided_folder, 3.5)
    pipeline = FluxPipeline.from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    policy = tiny_policy(folder)
    noise = initial_noise(policy.latent_shape, 1, "evaluation", [(c, 0) for c in CAPTIONS])
    theirs = pipeline(
        prompt=CAPTIONS,
        height=24,
        width=24,
        num_inference_steps=steps,
        guidance_scale=guidance,
        latents=noise,
        max_sequence_length=TOKENS,
        output_type="pt",
    ).images
    (ours,) = sample(policy, policy.encode_prompts(CAPTIONS), noise, policy.sigmas(steps), guidance)
    assert ours.std() > 0.01
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
