"""How the two losses are joined."""

from __future__ import annotations

import torch

from bpgo.core.loss import clipped_surrogate
from bpgo.method.objective import objective

PLAIN = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
TRANSFORMED = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
WEIGHT = torch.tensor([0.5, 1.0, 1.5], dtype=torch.float64)


def test_sum_weighs_the_first_term_only() -> None:
    first, second = objective(PLAIN, TRANSFORMED, WEIGHT, 0.5)
    assert (first.weight, second.weight) == (1.0, 0.5)
    torch.testing.assert_close(first.advantage, WEIGHT[:, None].float() * PLAIN)
    assert torch.equal(second.advantage, TRANSFORMED)


def test_both_terms() -> None:
    _, second = objective(PLAIN, TRANSFORMED, WEIGHT, 0.5, ras_applies_to="both")
    torch.testing.assert_close(second.advantage, WEIGHT[:, None].float() * TRANSFORMED)


def test_overwrite_keeps_one_term() -> None:
    (only,) = objective(PLAIN, TRANSFORMED, WEIGHT, 0.5, combine="overwrite")
    assert only.weight == 1.0
    torch.testing.assert_close(only.advantage, WEIGHT[:, None].float() * TRANSFORMED)


def test_without_varsigma_or_crt_one_plain_term_remains() -> None:
    ones = torch.ones(3, dtype=torch.float64)
    for transformed, varsigma in ((None, 0.5), (TRANSFORMED, 0.0)):
        for combine in ("sum", "overwrite"):
            (only,) = objective(PLAIN, transformed, ones, varsigma, combine)  # type: ignore[arg-type]
            assert torch.equal(only.advantage, PLAIN)


def test_two_terms_are_not_one_with_summed_advantages() -> None:
    """Each is clipped by the sign of its own advantage, so they must not be added before."""
    ratio = torch.tensor([1.01])
    first, second = torch.tensor([1.0]), torch.tensor([-1.5])
    apart = clipped_surrogate(ratio, first, 1e-3) + clipped_surrogate(ratio, second, 1e-3)
    together = clipped_surrogate(ratio, first + second, 1e-3)
    assert not torch.isclose(apart, together)
