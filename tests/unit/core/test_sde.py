"""Kernels against closed forms: moments, densities, limits, the marginals of a known flow."""

from __future__ import annotations

import math

import pytest
import torch

from bpgo.core.sde import (
    KERNELS,
    exponential_shift,
    flow_sigmas,
    flux_mu,
    flux_sigmas,
    log_prob,
    sd3_sigmas,
    static_shift,
    transition,
    unipc_sigmas,
)

STOCHASTIC = [name for name in KERNELS if name != "ode"]


def _inputs(batch: int = 4, shape: tuple[int, ...] = (3, 5), seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    draw = torch.randn(2, batch, *shape, generator=generator, dtype=torch.float64)
    sigma = torch.linspace(0.9, 0.3, batch, dtype=torch.float64)
    return draw[0], draw[1], sigma, sigma - 0.1


def _step(kernel: str, eta: float = 0.6, **changes):
    velocity, latents, sigma, sigma_next = _inputs()
    return transition(kernel, velocity, latents, sigma, sigma_next, eta, sigma_max=0.98, **changes)


@pytest.mark.parametrize("kernel", STOCHASTIC)
def test_samples_have_the_stated_moments(kernel: str) -> None:
    moved = _step(kernel)
    noise = torch.randn(40_000, *moved.mean.shape, generator=torch.Generator().manual_seed(1))
    drawn = moved.mean + moved.std * noise.double()
    standard_error = moved.std / math.sqrt(len(noise))
    assert ((drawn.mean(0) - moved.mean).abs() < 5 * standard_error).all()
    torch.testing.assert_close(drawn.std(0), moved.std.expand_as(moved.mean), rtol=0.03, atol=0.0)


def test_sample_is_mean_plus_std_times_noise() -> None:
    moved = _step("flow")
    noise = torch.ones_like(moved.mean)
    torch.testing.assert_close(moved.sample(noise), moved.mean + moved.std)


@pytest.mark.parametrize("kernel", STOCHASTIC)
def test_log_prob_is_the_normal_density(kernel: str) -> None:
    moved = _step(kernel)
    sample = moved.sample(torch.randn_like(moved.mean))
    density = torch.distributions.Normal(moved.mean, moved.std.expand_as(moved.mean))
    expected = density.log_prob(sample)
    found = log_prob(sample, moved.mean, moved.std)
    torch.testing.assert_close(found, expected.flatten(1).mean(1))
    sites = log_prob(sample, moved.mean, moved.std, reduction="channel_sum")
    torch.testing.assert_close(sites, expected.sum(1))


def test_log_prob_forms() -> None:
    moved = _step("cps")
    sample = moved.sample(torch.randn_like(moved.mean))
    squared = (sample - moved.mean).square().flatten(1).mean(1)
    variance = moved.std.flatten().square()
    torch.testing.assert_close(log_prob(sample, moved.mean, moved.std, "cps"), -squared)
    torch.testing.assert_close(
        log_prob(sample, moved.mean, moved.std, "exponent"), -squared / (2 * variance)
    )
    with pytest.raises(ValueError, match="form 'nll' is unknown"):
        log_prob(sample, moved.mean, moved.std, "nll")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="reduction 'sum' is unknown"):
        log_prob(sample, moved.mean, moved.std, reduction="sum")  # type: ignore[arg-type]


def test_no_gradient_flows_into_the_sample() -> None:
    moved = _step("flow")
    sample = moved.sample(torch.randn_like(moved.mean)).requires_grad_()
    mean = moved.mean.clone().requires_grad_()
    log_prob(sample, mean, moved.std).sum().backward()
    assert sample.grad is None
    assert mean.grad is not None


def test_ode_is_euler() -> None:
    velocity, latents, sigma, sigma_next = _inputs()
    moved = transition("ode", velocity, latents, sigma, sigma_next)
    step = (sigma_next - sigma)[:, None, None]
    torch.testing.assert_close(moved.mean, latents + step * velocity)
    assert not moved.std.any()


@pytest.mark.parametrize("kernel", ["flow", "dance", "cps", "ddim"])
def test_no_noise_is_euler(kernel: str) -> None:
    moved, euler = _step(kernel, eta=0.0), _step("ode")
    torch.testing.assert_close(moved.mean, euler.mean)
    assert not moved.std.any()


def test_each_kernel_has_its_std() -> None:
    _, _, sigma, sigma_next = _inputs()
    root = (sigma - sigma_next).sqrt()
    expected = {
        "dance": 0.6 * root,
        "flow": 0.6 * (sigma / (1 - sigma)).sqrt() * root,
        "cps": sigma_next * math.sin(0.6 * math.pi / 2),
        "wan": 0.98 * sigma * root,
        # eta times the std of the forward process's posterior q(x' | x, x0): with signal 1 - s and
        # noise s at a level, sqrt(s'^2 / s^2 (s^2 - (1 - s)^2 / (1 - s')^2 s'^2)).
        "ddim": 0.6
        * (sigma_next / sigma)
        * (sigma**2 - ((1 - sigma) / (1 - sigma_next) * sigma_next) ** 2).sqrt(),
    }
    for kernel, std in expected.items():
        torch.testing.assert_close(_step(kernel).std.flatten(), std)


def test_dance_without_score_term_keeps_the_noise() -> None:
    moved = _step("dance", score_term=False)
    torch.testing.assert_close(moved.mean, _step("ode").mean)
    torch.testing.assert_close(moved.std, _step("dance").std)


def test_flow_is_finite_where_sigma_is_one() -> None:
    velocity, latents, _, _ = _inputs(batch=1)
    moved = transition("flow", velocity, latents, 1.0, 0.96, 0.7)
    # g^2 = eta^2 / (1 - sigma_next) and h = 1 - sigma_next: the std is eta itself.
    torch.testing.assert_close(moved.std.item(), 0.7)
    assert moved.mean.isfinite().all()


@pytest.mark.parametrize("kernel", KERNELS)
def test_rows_may_sit_at_different_steps(kernel: str) -> None:
    velocity, latents, sigma, sigma_next = _inputs()
    together = _step(kernel)
    for row in range(len(sigma)):
        alone = transition(
            kernel,
            velocity[row : row + 1],
            latents[row : row + 1],
            sigma[row].item(),
            sigma_next[row].item(),
            0.6,
            sigma_max=0.98,
        )
        torch.testing.assert_close(alone.mean[0], together.mean[row])
        torch.testing.assert_close(alone.std[0], together.std[row])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_mathematics_is_float32_or_wider(dtype: torch.dtype) -> None:
    velocity, latents, sigma, sigma_next = _inputs()
    velocity, latents = velocity.to(dtype), latents.to(dtype)
    moved = transition("flow", velocity, latents, sigma, sigma_next, 0.6)
    wide = transition("flow", velocity.double(), latents.double(), sigma, sigma_next, 0.6)
    assert moved.mean.dtype == moved.std.dtype == torch.float32
    assert wide.mean.dtype == torch.float64
    torch.testing.assert_close(moved.mean.double(), wide.mean, rtol=1e-5, atol=1e-6)


def test_wan_needs_the_largest_sigma_and_kernels_have_names() -> None:
    velocity, latents, sigma, sigma_next = _inputs()
    with pytest.raises(ValueError, match="sigma_max"):
        transition("wan", velocity, latents, sigma, sigma_next)
    with pytest.raises(ValueError, match="kernel 'ddpm' is unknown"):
        transition("ddpm", velocity, latents, sigma, sigma_next)


@pytest.mark.parametrize(
    ("kernel", "eta", "spread"),
    [
        ("flow", 0.5, 0.4),
        ("dance", 0.5, 0.4),
        ("ode", 0.0, 0.4),
        ("cps", 0.6, 0.0),
        ("ddim", 1.0, 0.4),
    ],
)
def test_sampler_keeps_the_marginals_of_a_gaussian_flow(
    kernel: str, eta: float, spread: float
) -> None:
    """Data N(m, c^2): x_s = (1 - s) x0 + s x1 is Gaussian, its velocity linear in x.

    Mean and variance of a linear Gaussian chain follow exactly, so no sampling is needed; the step
    size is the only error (the start at 0.95 avoids the flow kernel's pole). CPS redraws a fixed
    share of the noise at every step, however small, so it keeps the marginals only where the image
    is known: point data.
    """
    centre, sigmas = 1.5, torch.linspace(0.95, 0, 2000, dtype=torch.float64)
    mean, variance = 0.05 * centre, 0.05**2 * spread**2 + 0.95**2

    def velocity(x: float, s: float) -> float:
        total = (1 - s) ** 2 * spread**2 + s**2
        slope = (s - (1 - s) * spread**2) / total  # d E[x1 - x0 | x] / dx
        return slope * (x - (1 - s) * centre) - centre

    for now, following in zip(sigmas[:-1].tolist(), sigmas[1:].tolist(), strict=True):
        points = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
        speeds = torch.tensor([[velocity(0.0, now)], [velocity(1.0, now)]], dtype=torch.float64)
        moved = transition(kernel, speeds, points, now, following, eta)
        intercept = moved.mean[0].item()
        slope = moved.mean[1].item() - intercept
        mean, variance = slope * mean + intercept, slope**2 * variance + moved.std[0].item() ** 2
        expected = math.sqrt((1 - following) ** 2 * spread**2 + following**2)
        assert math.sqrt(variance) == pytest.approx(expected, abs=5e-3)
    assert mean == pytest.approx(centre, abs=5e-3)


def test_only_the_velocity_is_differentiated() -> None:
    velocity, latents, sigma, sigma_next = _inputs()
    velocity.requires_grad_()
    moved = transition("flow", velocity, latents, sigma, sigma_next, 0.6)
    assert not moved.std.requires_grad
    moved.mean.sum().backward()
    torch.testing.assert_close(velocity.grad, moved.velocity_scale.expand_as(velocity))


@pytest.mark.parametrize(
    "sigmas",
    [flow_sigmas(8, 3.0), flux_sigmas(8, 0.63), sd3_sigmas(8, 3.0), unipc_sigmas(8, 3.0)],
)
def test_schedules_fall_from_noise_to_zero(sigmas: torch.Tensor) -> None:
    assert sigmas.shape == (9,)
    assert sigmas.dtype == torch.float32
    assert sigmas[0] > 0.99
    assert sigmas[-1] == 0
    assert (sigmas.diff() < 0).all()


def test_shifts() -> None:
    even = torch.linspace(0.1, 1, 10, dtype=torch.float64)
    torch.testing.assert_close(static_shift(even, 1.0), even)
    torch.testing.assert_close(exponential_shift(even, math.log(3)), static_shift(even, 3.0))
    assert flux_mu(256) == pytest.approx(0.5)
    assert flux_mu(4096) == pytest.approx(1.15)
