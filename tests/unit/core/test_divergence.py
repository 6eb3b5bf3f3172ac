"""Divergence of a policy's path, against integrals known without the code."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from bpgo.core.divergence import path_kl
from bpgo.core.sde import transition
from bpgo.interfaces import PromptEmbeddings

SHAPE = (3, 5)
SIGMAS = torch.tensor([1.0, 0.7, 0.4, 0.1, 0.0])


class Constant:
    """A policy whose velocity is a constant, apart from what its prompt adds."""

    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, value: float) -> None:
        self.value, self.sizes = value, []

    def velocity(self, latents: Tensor, sigma: Tensor, prompts: Any, guidance: Any) -> Tensor:
        self.sizes.append(len(latents))
        return torch.full_like(latents, self.value) + prompts.tokens.mean((1, 2))[:, None, None]


def measured(policy: Constant, base: Constant, kernel: str = "dance", **options: Any) -> Tensor:
    prompts = PromptEmbeddings(torch.arange(4.0)[:, None, None].expand(4, 2, 2).contiguous())
    noise = torch.randn(4, 4, *SHAPE, generator=torch.Generator().manual_seed(0))
    given: Any = policy
    return path_kl(given, base.velocity, prompts, noise, SIGMAS, kernel, 0.6, **options)


@pytest.mark.parametrize("kernel", ["dance", "flow", "cps", "wan"])
def test_the_sum_of_squared_mean_differences(kernel: str) -> None:
    """Means differ by b times the difference of velocities, at every latent number."""
    expected = 0.0
    for now, following in ((1.0, 0.7), (0.7, 0.4), (0.4, 0.1)):
        zero = torch.zeros(1, *SHAPE)
        one = transition(kernel, zero + 1, zero, now, following, 0.6, sigma_max=SIGMAS[1])
        other = transition(kernel, zero, zero, now, following, 0.6, sigma_max=SIGMAS[1])
        gap = (one.mean - other.mean).flatten()[0] * 0.5
        expected += float(gap**2 / (2 * one.std.flatten()[0] ** 2))
    found = measured(Constant(1.5), Constant(1.0), kernel)
    torch.testing.assert_close(found, torch.full((4,), expected, dtype=torch.float64))


def test_the_base_policy_has_not_moved_and_batches_do_not_count() -> None:
    policy = Constant(1.0)
    assert measured(policy, Constant(1.0)).tolist() == [0.0] * 4
    assert policy.sizes == [4] * 3, "no pass at the step without noise"
    whole = measured(Constant(2.0), Constant(1.0))
    torch.testing.assert_close(measured(Constant(2.0), Constant(1.0), batch_size=3), whole)
    torch.testing.assert_close(measured(Constant(3.0), Constant(1.0)), 4 * whole)
