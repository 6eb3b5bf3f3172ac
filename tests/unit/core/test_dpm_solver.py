"""DPM-Solver++ on flows whose solution is known."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from bpgo.core.dpm_solver import DpmSolver, moved
from bpgo.core.sde import transition

SPREAD = 0.5  # standard deviation of normal data


def deviation(sigma: Tensor) -> Tensor:
    """Standard deviation of (1 - s) x0 + s eps."""
    return ((1 - sigma) ** 2 * SPREAD**2 + sigma**2).sqrt()


def velocity(latents: Tensor, sigma: Tensor) -> Tensor:
    """Of the flow of normal data: (x - E[x0 | x]) / s."""
    image = (1 - sigma) * SPREAD**2 / deviation(sigma) ** 2 * latents
    return (latents - image) / sigma


def solve(sigmas: Tensor, first_order: bool) -> Tensor:
    """From x = 1 at the first noise level to the last."""
    latents, solver = torch.ones(1, 1, dtype=torch.float64), DpmSolver()
    for sigma, following in pairwise(sigmas):
        solver = DpmSolver() if first_order else solver
        latents = solver.step(velocity(latents, sigma), latents, sigma, following)
    return latents


def error(steps: int, first_order: bool) -> float:
    """The solution keeps x / deviation."""
    sigmas = torch.linspace(0.9, 0.1, steps + 1, dtype=torch.float64)
    exact = deviation(sigmas[-1]) / deviation(sigmas[0])
    return float((solve(sigmas, first_order) - exact).abs())


@pytest.mark.parametrize(("first_order", "shrinks"), [(True, 2.0), (False, 4.0)])
def test_half_the_step_divides_the_error_by_two_to_the_order(
    first_order: bool, shrinks: float
) -> None:
    found = error(64, first_order) / error(128, first_order)
    assert found == pytest.approx(shrinks, rel=0.15)
    assert error(32, False) < error(32, True) / 5


def test_the_first_step_is_eulers() -> None:
    draws = torch.randn(2, 3, 4, 8, generator=torch.Generator().manual_seed(0))
    sigma, following = torch.tensor(0.8), torch.tensor(0.6)
    found = DpmSolver().step(draws[0], draws[1], sigma, following)
    wanted = transition("ode", draws[0], draws[1], sigma, following).mean
    torch.testing.assert_close(found, wanted)


def test_a_constant_prediction_is_reached_on_a_straight_line() -> None:
    image, noise = torch.tensor([[2.0, -1.0]]), torch.tensor([[0.5, 3.0]])
    latents, solver = 0.9 * noise + 0.1 * image, DpmSolver()
    for sigma, following in pairwise(torch.tensor([0.9, 0.5, 0.2, 0.0])):
        latents = solver.step(noise - image, latents, sigma, following)
        torch.testing.assert_close(latents, following * noise + (1 - following) * image)


def test_the_last_step_gives_the_predicted_image_itself() -> None:
    solver, latents = DpmSolver(), torch.ones(1, 2)
    solver.remember(torch.full((1, 2), 3.0), latents, torch.tensor(0.4))
    found = solver.step(torch.full((1, 2), -1.0), latents, torch.tensor(0.2), torch.tensor(0.0))
    torch.testing.assert_close(found, torch.full((1, 2), 1.2))


def test_pure_noise_as_the_level_before_gives_a_first_order_step() -> None:
    one, two = torch.tensor(0.7), torch.tensor(0.5)
    solver = DpmSolver()
    solver.remember(torch.ones(1, 2), torch.zeros(1, 2), torch.tensor(1.0))
    found = solver.step(torch.full((1, 2), 2.0), torch.ones(1, 2), one, two)
    torch.testing.assert_close(found, moved(torch.ones(1, 2), torch.full((1, 2), -0.4), one, two))
