"""Diversity and distance of samples, against answers known without the code."""

from __future__ import annotations

import pytest
import torch

from bpgo.core.spread import kernel_distance, mean_distance, vendi_score


@pytest.mark.parametrize("count", [1, 2, 8])
def test_vendi_counts_the_samples_that_differ(count: int) -> None:
    assert vendi_score(torch.ones(count, 5)) == pytest.approx(1)
    assert vendi_score(3 * torch.eye(count, 9)) == pytest.approx(count)
    assert vendi_score(torch.zeros(count, 5)) == pytest.approx(count), "like no other"
    twice = torch.eye(count, 9).repeat(2, 1)
    assert vendi_score(twice) == pytest.approx(count), "each there twice"


def test_vendi_of_two_samples_at_an_angle() -> None:
    cosine = 0.6  # eigenvalues (1 +- .6) / 2
    found = vendi_score(torch.tensor([[1.0, 0.0], [0.6, 0.8]]))
    values = torch.tensor([(1 + cosine) / 2, (1 - cosine) / 2])
    assert found == pytest.approx(float((-(values * values.log()).sum()).exp()))


def test_mean_distance_of_a_triangle() -> None:
    assert mean_distance(torch.tensor([[0.0, 0], [3, 0], [0, 4]])) == pytest.approx(4)
    assert mean_distance(torch.ones(4, 3)) == 0


def test_equal_sets_have_no_distance() -> None:
    features = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    assert kernel_distance(features, features) == pytest.approx(0, abs=1e-12)


def test_paired_sets_of_one_distribution_have_none_on_average() -> None:
    """The pairs' own terms are left out: with them, sets that share noise would seem too near."""
    random = torch.Generator().manual_seed(1)
    found = []
    for _ in range(300):
        shared = torch.randn(40, 4, generator=random)
        own = torch.randn(2, 40, 4, generator=random)
        first, second = (0.8 * shared + 0.6 * each for each in own)
        found.append(kernel_distance(first, second))
    values = torch.tensor(found)
    assert abs(float(values.mean())) < 3 * float(values.std()) / 300**0.5
    assert (values < 0).any(), "unbiased, so also below zero"


def test_distance_of_two_points() -> None:
    """(x.y / D + 1)^3 with D = 2 for sets that are constant: 27 + 1 - 2, since x.x = 4."""
    x, y = torch.tensor([[2.0, 0.0]]).expand(5, 2), torch.zeros(5, 2)
    assert kernel_distance(x, y) == pytest.approx(27 + 1 - 2)
