"""What the shared mathematics promises for any input."""

from __future__ import annotations

import torch
from advantages import PRESETS, advantage_settings
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bpgo.core.advantage import group_advantage
from bpgo.core.sde import KERNELS, flow_sigmas, log_prob, transition

settings.register_profile("bpgo", max_examples=40, deadline=None)
settings.load_profile("bpgo")

GROUPS = arrays("float64", (3, 6), elements=st.floats(-10, 10, width=32))
PRESET = st.sampled_from(sorted(PRESETS))


@given(GROUPS, PRESET)
def test_advantages_of_a_group_have_mean_zero(rewards, preset) -> None:
    unclipped = PRESETS[preset].model_copy(update={"clip": None})
    found = group_advantage(torch.from_numpy(rewards), unclipped)
    # Rounding of the mean, 1e-15 of a reward, is divided by at least epsilon.
    assert found.mean(dim=1).abs().max() < 1e-6


@given(GROUPS, PRESET, st.floats(-100, 100))
def test_advantages_ignore_a_shift(rewards, preset, shift) -> None:
    rewards = torch.from_numpy(rewards)
    assume((rewards.std(dim=1) > 1e-3).all())
    found = group_advantage(rewards, PRESETS[preset])
    moved = group_advantage(rewards + shift, PRESETS[preset])
    torch.testing.assert_close(moved, found, rtol=1e-6, atol=1e-8)


@given(GROUPS, st.floats(0.1, 10))
def test_advantages_ignore_a_scale_up_to_epsilon(rewards, scale) -> None:
    rewards = torch.from_numpy(rewards)
    assume((rewards.std(dim=1) > 1e-2).all())
    chosen = advantage_settings(epsilon=1e-12)
    torch.testing.assert_close(
        group_advantage(scale * rewards, chosen),
        group_advantage(rewards, chosen),
        rtol=1e-6,
        atol=0,
    )


@given(GROUPS, PRESET)
def test_a_better_sample_never_has_a_smaller_advantage(rewards, preset) -> None:
    rewards = torch.from_numpy(rewards)
    found = group_advantage(rewards, PRESETS[preset])
    order = rewards.argsort(dim=1)
    assert (found.gather(1, order).diff(dim=1) >= 0).all()


@given(
    st.sampled_from([kernel for kernel in KERNELS if kernel != "ode"]),
    st.integers(2, 30),
    st.floats(0.5, 8),
    st.floats(0.05, 0.95),
)
def test_every_step_of_a_schedule_has_a_density(kernel, steps, shift, eta) -> None:
    sigmas = flow_sigmas(steps, shift)
    generator = torch.Generator().manual_seed(steps)
    velocity, latents, noise = torch.randn(3, steps - 1, 2, 3, generator=generator)
    now, following = sigmas[: steps - 1], sigmas[1:steps]
    moved = transition(kernel, velocity, latents, now, following, eta, sigma_max=sigmas[1])
    assert (moved.std > 0).all()
    assert log_prob(moved.sample(noise), moved.mean, moved.std).isfinite().all()
