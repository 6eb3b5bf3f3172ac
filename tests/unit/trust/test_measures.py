"""Ranks, rank correlation, members, weights of mean 1."""

from __future__ import annotations

import pytest
import torch

from bpgo.errors import UserError
from bpgo.records import GroupRewards
from bpgo.trust.measures import average_ranks, goodman_kruskal, mean_one, members, spearman


def test_ranks_are_shared_by_equal_values() -> None:
    values = torch.tensor([[3.0, 1.0, 3.0, 2.0], [5.0, 5.0, 5.0, 5.0]])
    assert average_ranks(values).tolist() == [[3.5, 1.0, 3.5, 2.0], [2.5] * 4]


def test_spearman_by_hand() -> None:
    left = torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [1.0, 1.0, 2.0]])
    right = torch.tensor([[1.0, 10.0, 99.0], [3.0, 2.0, 1.0], [7.0, 7.0, 7.0], [1.0, 2.0, 3.0]])
    found = spearman(left, right)
    assert found.tolist() == pytest.approx([1.0, -1.0, 0.0, 3**0.5 / 2])


def test_goodman_kruskal_by_hand() -> None:
    """Of three pairs: all alike; one tied, the others alike; two of three unlike; all tied."""
    left = torch.tensor([[1.0, 2.0, 3.0]] * 4)
    right = torch.tensor([[1.0, 10.0, 99.0], [1.0, 1.0, 2.0], [2.0, 3.0, 1.0], [7.0, 7.0, 7.0]])
    found = goodman_kruskal(left, right)
    assert found[:3].tolist() == pytest.approx([1.0, 1.0, -1 / 3])
    assert found[3].isnan()


def test_mean_one() -> None:
    assert mean_one(torch.tensor([1.0, 3.0])).tolist() == [0.5, 1.5]
    assert mean_one(torch.zeros(3)).tolist() == [1.0] * 3


def test_one_reward_is_no_ensemble() -> None:
    groups = GroupRewards(torch.zeros(1, 2), ["a"], parts={"only": torch.zeros(1, 2)})
    with pytest.raises(UserError, match="rule 'agreement' compares the parts"):
        members(groups, "agreement")
