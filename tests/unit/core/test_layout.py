"""Which samples share a forward pass and an optimizer step."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bpgo.core.layout import Layout, Pass

ALL = torch.ones(12, dtype=torch.bool)


def steps(columns: int) -> torch.Tensor:
    """Every sample trains the first steps."""
    return torch.arange(columns).expand(12, -1)


def layout(**changes: Any) -> Layout:
    """Three groups of four."""
    values = {"prompts": 3, "group_size": 4, "batch_size": 12, "optimizer_steps": 2}
    return Layout(**(values | changes))


def pairs(passes: list[Pass]) -> list[tuple[int, int]]:
    return [
        pair for one in passes for pair in zip(one.rows.tolist(), one.columns.tolist(), strict=True)
    ]


def test_an_optimizer_step_takes_some_samples_of_each_group() -> None:
    assert [share.tolist() for share in layout().shares()] == [
        [0, 1, 4, 5, 8, 9],
        [2, 3, 6, 7, 10, 11],
    ]


def test_or_whole_groups() -> None:
    for changes in ({"whole_groups": True}, {"split": "groups"}):
        found = layout(optimizer_steps=3, **changes).shares()
        assert [share.tolist() for share in found] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]


def test_or_some_trained_steps_of_all_samples() -> None:
    first, second = layout(split="steps").turns(steps(3), ALL)
    assert pairs(first) == [(row, column) for column in (0, 1) for row in range(12)]
    assert pairs(second) == [(row, 2) for row in range(12)]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"split": "steps"},
        {"whole_groups": True},
        {"split": "groups"},
        {"split": "groups", "same_rows": True, "batch_size": 4},
        {"batch_size": 5},
        {"same_rows": True, "batch_size": 4},
        {"same_rows": True, "split": "steps", "batch_size": 5},
        {"optimizer_steps": 1},
    ],
)
def test_every_point_is_trained_once(changes: dict[str, Any]) -> None:
    found = layout(**changes)
    trained = [pair for turn in found.turns(steps(4), ALL) for pair in pairs(turn)]
    assert sorted(trained) == [(row, column) for row in range(12) for column in range(4)]
    drawn = torch.cat([one.rows for one in found.at_step(0)])
    assert sorted(drawn.tolist()) == list(range(12))
    assert all(one.count <= found.batch_size for one in found.at_step(0))


def test_passes_are_filled_up_to_the_rollouts_size() -> None:
    for turn in layout().turns(steps(4), ALL):
        assert [len(one.rows) for one in turn] == [12, 12]


def test_passes_with_the_rollouts_rows_are_the_rollouts() -> None:
    found = layout(same_rows=True, batch_size=4)
    drawn = [one.rows.tolist() for one in found.at_step(0)]
    assert drawn == [[0, 1, 4, 5], [8, 9], [2, 3, 6, 7], [10, 11]]
    for turn in found.turns(steps(2), ALL):
        assert all(one.rows.tolist() in drawn for one in turn)
        assert all(len(set(one.columns.tolist())) == 1 for one in turn)


def test_samples_without_advantage_are_left_out() -> None:
    active = ALL.clone()
    active[4:8] = False
    first, _ = layout().turns(steps(1), active)
    assert pairs(first) == [(0, 0), (1, 0), (8, 0), (9, 0)]


def test_or_kept_where_their_pass_has_another_sample() -> None:
    active = torch.zeros(12, dtype=torch.bool)
    active[0] = True
    found = layout(same_rows=True, batch_size=4)
    first, second = found.turns(steps(1), active)
    assert [one.rows.tolist() for one in first] == [[0, 1, 4, 5]]
    assert second == []
    kept = found.turns(steps(1), active, keep_all=True)
    assert [len(turn) for turn in kept] == [2, 2]


def test_passes_of_whole_groups_hold_whole_groups() -> None:
    found = layout(whole_groups=True, batch_size=6, optimizer_steps=1)
    assert [len(one.rows) for one in found.at_step(0)] == [4, 4, 4]
    (turn,) = found.turns(steps(2), ALL)
    assert [one.rows.tolist() for one in turn] == 2 * [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]


SHARED_START = torch.tensor([[0, row] for row in range(4)] * 3)
SHARED_START = SHARED_START + torch.arange(3).repeat_interleave(4)[:, None] * 4
"""Three groups that share their start: step 0 is computed once a group, step 1 for each sample."""


def test_equal_inputs_are_computed_once() -> None:
    found = layout(alike=SHARED_START, optimizer_steps=1)
    first, second = found.at_step(0), found.at_step(1)
    assert [one.count for one in first] == [3]
    assert len(first[0].once(torch.arange(12))) == 8  # filled up: fewer rows round differently
    assert [one.count for one in second] == [12]
    (turn,) = found.turns(steps(2), ALL)
    assert [one.count for one in turn] == [12, 3]
    assert [len(one.rows) for one in turn] == [21, 3]
    values = torch.arange(21.0)
    filled = turn[0]
    assert torch.equal(
        filled.spread(filled.once(values)),
        values.new_tensor([0] * 4 + [4] * 4 + [8] * 4 + list(range(12, 21))),
    )


def test_passes_of_the_rollouts_rows_share_as_the_rollout_does() -> None:
    found = layout(alike=SHARED_START, same_rows=True, batch_size=2)
    drawn = {
        step: [(one.rows.tolist(), one.count) for one in found.at_step(step)] for step in (0, 1)
    }
    assert drawn[0] == [([0, 1, 4, 5], 2), ([8, 9], 1), ([2, 3, 6, 7], 2), ([10, 11], 1)]
    for turn in found.turns(steps(2), ALL):
        for one in turn:
            assert (one.rows.tolist(), one.count) in drawn[int(one.columns[0])]


def test_groups_stay_whole_where_their_start_is_shared() -> None:
    found = layout(alike=SHARED_START, whole_groups=True, batch_size=5, optimizer_steps=1)
    (turn,) = found.turns(steps(2), ALL)
    assert [one.count for one in turn] == [3, 4, 4, 4]
    assert [one.rows.tolist() for one in turn] == [
        list(range(12)),
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [8, 9, 10, 11],
    ]


def test_samples_that_were_noised_again_are_not_alike() -> None:
    found = layout(alike=SHARED_START, optimizer_steps=1)
    (turn,) = found.turns(steps(1), ALL, stored=False)
    assert [one.count for one in turn] == [12]
