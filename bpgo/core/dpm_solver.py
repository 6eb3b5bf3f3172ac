"""DPM-Solver++ (arXiv 2211.01095) on a rectified flow: second order, multistep, midpoint.

A deterministic step from noise level s to s' (Algorithm 2 there), with alpha = 1 - s and the half
log-SNR l(s) = log(alpha / s): for h = l(s') - l(s) > 0,

    x' = (s' / s) x + alpha' (1 - e^-h) D,    D = m0 + (m0 - m1) h / (2 h1),

where m0 is the image predicted at s, m1 that predicted at the level r before, h1 = l(s) - l(r).
Without m1, D = m0, which is the Euler step; so it is for s' = 0, where h is infinite.

Shapes: B samples, `...` any latent layout; noise levels are scalars.
"""

from __future__ import annotations

from torch import Tensor


def half_log_snr(sigma: Tensor) -> Tensor:
    """log((1 - s) / s), in float64; minus infinity at 1, infinity at 0."""
    sigma = sigma.double()
    return (1 - sigma).log() - sigma.log()


def extrapolated(
    predicted: Tensor, earlier: Tensor, before: Tensor, sigma: Tensor, sigma_next: Tensor
) -> Tensor:
    """D of the images predicted at `sigma` and at the level `before` it, `[B, ...]`."""
    here = half_log_snr(sigma)
    share = (half_log_snr(sigma_next) - here) / (here - half_log_snr(before)) / 2
    share = share.masked_fill(share.isinf(), 0.0)  # a step to noise level 0
    return predicted + share.to(predicted.dtype) * (predicted - earlier)


def moved(latents: Tensor, predicted: Tensor, sigma: Tensor, sigma_next: Tensor) -> Tensor:
    """The latents at `sigma_next` `[B, ...]`, moved towards the image `predicted` (D, or m0)."""
    kept = sigma_next.double() / sigma.double()
    taken = (1 - sigma_next.double()) * -(half_log_snr(sigma) - half_log_snr(sigma_next)).expm1()
    return kept.to(latents.dtype) * latents + taken.to(latents.dtype) * predicted


class DpmSolver:
    """The solver along one path: it remembers the last image that was predicted."""

    def __init__(self) -> None:
        self._earlier: tuple[Tensor, Tensor] | None = None

    def remember(self, velocity: Tensor, latents: Tensor, sigma: Tensor) -> Tensor:
        """The predicted image x - s v `[B, ...]`, kept for the next step."""
        predicted = latents - sigma * velocity
        self._earlier = (predicted, sigma)
        return predicted

    def step(self, velocity: Tensor, latents: Tensor, sigma: Tensor, sigma_next: Tensor) -> Tensor:
        """The latents `[B, ...]` at `sigma_next`."""
        earlier = self._earlier
        predicted = self.remember(velocity, latents, sigma)
        if earlier is not None:
            predicted = extrapolated(predicted, *earlier, sigma, sigma_next)
        return moved(latents, predicted, sigma, sigma_next)
