"""Stochastic samplers of a rectified flow: one transition, its log-probability, the schedules.

Shapes: B samples, `...` any latent layout. `s` is the noise level sigma of a step (1 noise, 0
image), `s'` the next one, `h = s - s' > 0`. Velocity `v`, latent `x`, `x0 = x - s v` the predicted
image, `x1 = x + (1 - s) v` the predicted noise.

Every kernel here is Gaussian with a mean that is linear in latent and velocity,

    p(x' | x) = N(a x + b v, std^2),

so a kernel is three numbers a row, `(a, b, std)`. Libraries return different things under the name
`std_dev_t`; here `std` is always the full standard deviation of the transition, sqrt(h) included.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

KERNELS = ("flow", "dance", "cps", "ddim", "wan", "ode")
LogProbForm = Literal["gaussian", "exponent", "cps"]
Reduction = Literal["mean", "channel_sum"]
Coefficients = tuple[Tensor, Tensor, Tensor]
AT_ONE = 1e-5  # a schedule starts at 1, or so near that (diffusers' UniPC: 1 - 1e-6)


class Transition(NamedTuple):
    """`mean` `[B, ...]`; `std` (full), `sqrt_dt` = sqrt(h), `velocity_scale` = b: `[B, 1, ...]`."""

    mean: Tensor
    std: Tensor
    sqrt_dt: Tensor
    velocity_scale: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """The next latents `[B, ...]` for standard normal `noise` `[B, ...]`."""
        return torch.addcmul(self.mean, self.std, noise.to(self.mean.dtype))


def transition(
    kernel: str,
    velocity: Tensor,
    latents: Tensor,
    sigma: Tensor | float,
    sigma_next: Tensor | float,
    noise_level: Tensor | float = 0.0,
    *,
    score_term: bool = True,
    sigma_max: Tensor | float | None = None,
) -> Transition:
    """One step of a sampler from `sigma` down to `sigma_next`.

    Args:
        kernel: `flow` (Flow-GRPO Eq. 9), `dance` (DanceGRPO Eq. 8), `cps` (Flow-CPS), `ddim` (DDPO:
            arXiv 2010.02502 Eq. 12 and 16, for a flow's signal and noise), `wan` (Flow-GRPO's Wan
            pipeline: linear std, no noise level) or `ode` (Euler).
        velocity: the model's output `[B, ...]`, in any float type.
        latents: `[B, ...]`.
        sigma: the step's sigma, a number or `[B]`: rows may sit at different steps. Above 0.
        sigma_next: the next sigma, a number or `[B]`, below `sigma`.
        noise_level: eta, a number or `[B]`. `wan` and `ode` ignore it.
        score_term: False leaves the drift correction out (DanceGRPO's `sde_solver=False`).
        sigma_max: `wan` only: the schedule's second sigma, at which its std is largest.

    Returns:
        float32 tensors, or float64 where the latents are float64.

    Raises:
        ValueError: for an unknown kernel, or `wan` without `sigma_max`.
    """
    dtype = torch.float64 if latents.dtype == torch.float64 else torch.float32
    like = latents.new_empty(0, dtype=dtype)
    now, following = _rows(sigma, latents, like), _rows(sigma_next, latents, like)
    eta = _rows(noise_level, latents, like)
    if kernel == "cps":
        angle = eta * (math.pi / 2)
        coefficients = _preserving(now, following, angle.sin(), angle.cos())
    elif kernel == "ddim":
        drawn = eta * _ancestral(now, following)
        coefficients = _preserving(now, following, drawn, (1 - drawn.square()).sqrt())
    else:
        diffusion = _diffusion(kernel, now, following, eta, sigma_max)
        coefficients = _sde(now, following, diffusion, score_term)
    a, b, std = (_broadcast(value, latents) for value in coefficients)
    mean = torch.addcmul(a * latents.to(dtype), b, velocity.to(dtype))
    return Transition(mean, std, _broadcast((now - following).sqrt(), latents), b)


def _diffusion(
    kernel: str, sigma: Tensor, sigma_next: Tensor, eta: Tensor, sigma_max: Tensor | float | None
) -> Tensor:
    """The diffusion coefficient g `[B]` of `dx = ... dt + g dw`."""
    if kernel == "ode":
        return torch.zeros_like(sigma)
    if kernel == "dance":
        return eta
    if kernel == "flow":
        # g = eta sqrt(s / (1 - s)) has a pole at s = 1; there the denominator takes the next sigma.
        start = sigma > 1 - AT_ONE
        return eta * (sigma / (1 - torch.where(start, sigma_next, sigma))).sqrt()
    if kernel == "wan":
        if sigma_max is None:
            raise ValueError("the wan kernel needs sigma_max, the schedule's second sigma")
        return sigma * sigma_max
    raise ValueError(f"kernel '{kernel}' is unknown; known: {', '.join(KERNELS)}")


def _sde(sigma: Tensor, sigma_next: Tensor, diffusion: Tensor, score_term: bool) -> Coefficients:
    """Euler-Maruyama of the reverse SDE with the marginals of the flow.

    mean = x - h v - (g^2 / 2) h (x + (1 - s) v) / s, std = g sqrt(h): the score of a rectified flow
    is -(x + (1 - s) v) / s.
    """
    step = sigma - sigma_next
    half = diffusion.square() / (2 * sigma) if score_term else torch.zeros_like(sigma)
    return 1 - half * step, -step * (1 + half * (1 - sigma)), diffusion * step.sqrt()


def _preserving(sigma: Tensor, sigma_next: Tensor, drawn: Tensor, kept: Tensor) -> Coefficients:
    """The noise that the flow has at s': a share q `drawn` anew, sqrt(1 - q^2) `kept`.

    mean = (1 - s') x0 + s' sqrt(1 - q^2) x1 and std = s' q, so noise of variance s'^2 remains after
    the step. Flow-CPS has q = sin(eta pi/2).
    """
    rest = sigma_next * kept
    a = 1 - sigma_next + rest
    b = (1 - sigma) * rest - sigma * (1 - sigma_next)
    return a, b, sigma_next * drawn


def _ancestral(sigma: Tensor, sigma_next: Tensor) -> Tensor:
    """The share of noise that DDIM with eta = 1 draws anew, as the forward process's posterior has.

    sqrt(1 - rho^2), rho = ((1 - s) / s) (s' / (1 - s')) the signal-to-noise before over that after.
    """
    ratio = (1 - sigma) * sigma_next / (sigma * (1 - sigma_next))
    return (1 - ratio.square()).sqrt()


def _rows(value: Tensor | float, latents: Tensor, like: Tensor) -> Tensor:
    """A number or `[B]` (or `[B, 1, ...]`) as `[B]`."""
    tensor = torch.as_tensor(value, dtype=like.dtype, device=like.device)
    return tensor.reshape(-1).expand(latents.shape[0])


def _broadcast(value: Tensor, latents: Tensor) -> Tensor:
    """`[B]` as `[B, 1, ...]`."""
    return value.reshape(-1, *[1] * (latents.ndim - 1))


def log_prob(
    sample: Tensor,
    mean: Tensor,
    std: Tensor,
    form: LogProbForm = "gaussian",
    reduction: Reduction = "mean",
    channel: int = 1,
) -> Tensor:
    """Log-probability of `sample` `[B, C, ...]` under N(mean, std^2); no gradient to the sample.

    With `reduction="mean"` the average over all but the batch dimension, `[B]`, as in all peers
    (so a ratio is the geometric mean over latent numbers); with `channel_sum` the sum over
    the channel dimension, one value per site, `[B, *sites]` (VIPO); `channel` says which it is.

    Forms: `gaussian` the density with all constants; `exponent` without its two logarithms
    (MixGRPO's copy of the dance kernel); `cps` the bare squared error -(x' - mean)^2 (Flow-CPS).
    `std` must be above 0 except for `cps`: a deterministic step has no density.
    """
    squared = (sample.detach().to(mean.dtype) - mean).square()
    dimensions = 1
    if reduction == "mean":
        squared, std = squared.flatten(1).mean(1), std.flatten()
    elif reduction == "channel_sum":
        dimensions = squared.shape[channel]
        squared, std = squared.sum(channel), std.squeeze(channel)
    else:
        raise ValueError(f"reduction '{reduction}' is unknown; known: mean, channel_sum")
    if form == "cps":
        return -squared
    exponent = -squared / (2 * std.square())
    if form == "exponent":
        return exponent
    if form == "gaussian":
        return exponent - dimensions * (std.log() + 0.5 * math.log(2 * math.pi))
    raise ValueError(f"form '{form}' is unknown; known: gaussian, exponent, cps")


# Schedules: `steps + 1` sigmas in float32, from noise down to 0.


def static_shift(sigmas: Tensor, shift: float) -> Tensor:
    """Moves sigmas towards noise: shift s / (1 + (shift - 1) s) (SD3, arXiv 2403.03206 Eq. 23)."""
    return shift * sigmas / (1 + (shift - 1) * sigmas)


def exponential_shift(sigmas: Tensor, mu: float) -> Tensor:
    """FLUX's resolution-dependent shift: e^mu / (e^mu + 1/s - 1)."""
    return math.exp(mu) / (math.exp(mu) + 1 / sigmas - 1)


def flux_mu(tokens: int) -> float:
    """FLUX's mu: linear in the number of image tokens, 256 -> 0.5, 4096 -> 1.15."""
    return 0.5 + (tokens - 256) * (1.15 - 0.5) / (4096 - 256)


def flow_sigmas(steps: int, shift: float = 1.0) -> Tensor:
    """Evenly spaced sigmas with a static shift `[steps + 1]` (DanceGRPO's `sd3_time_shift`)."""
    return static_shift(torch.linspace(1, 0, steps + 1, dtype=torch.float64), shift).float()


def flux_sigmas(steps: int, mu: float) -> Tensor:
    """Evenly spaced sigmas with FLUX's exponential shift `[steps + 1]` (FluxPipeline)."""
    even = torch.linspace(1, 1 / steps, steps, dtype=torch.float64)
    return _end_at_zero(exponential_shift(even, mu))


def sd3_sigmas(steps: int, shift: float, train_steps: int = 1000) -> Tensor:
    """Sigmas of diffusers' Euler scheduler when the pipeline passes none `[steps + 1]` (SD3).

    Its smallest sigma, 1 / train_steps, is shifted once before the spacing and again after it.
    """
    smallest = static_shift(torch.tensor(1 / train_steps, dtype=torch.float64), shift)
    even = torch.linspace(1, smallest.item(), steps, dtype=torch.float64)
    return _end_at_zero(static_shift(even, shift))


def unipc_sigmas(steps: int, shift: float, train_steps: int = 1000) -> Tensor:
    """Sigmas of diffusers 0.36's UniPC scheduler with `use_flow_sigmas` `[steps + 1]` (Wan).

    Later versions start at 1 and space them down to 1 / train_steps: up to .003 higher.
    """
    largest = 1 - 1 / train_steps
    even = torch.linspace(largest, 0, steps + 1, dtype=torch.float64)[:-1]
    return _end_at_zero(static_shift(even, shift))


def _end_at_zero(sigmas: Tensor) -> Tensor:
    return torch.cat([sigmas, sigmas.new_zeros(1)]).float()
