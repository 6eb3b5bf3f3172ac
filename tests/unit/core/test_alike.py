"""Which samples of a group are one path, and until when."""

from __future__ import annotations

import torch

from bpgo.core.alike import alike_rows, first_alike
from bpgo.records import Plan


def test_without_shared_noise_nobody_is() -> None:
    noise = [[0] * 4, [1] * 4]
    assert first_alike(noise, [[True] * 3] * 2) == [[0, 0, 0], [1, 1, 1]]


def test_a_shared_start_is_one_step_long() -> None:
    noise = [[0, 0, 0], [0, 1, 1], [0, 2, 2]]
    assert first_alike(noise, [[True, True]] * 3) == [[0, 0], [0, 1], [0, 2]]


def test_steps_without_noise_part_nobody() -> None:
    noise = [[0, 0, 0, 0], [0, 1, 1, 1]]
    assert first_alike(noise, [[False, False, True]] * 2) == [[0, 0, 0], [0, 0, 0]]
    assert first_alike(noise, [[False, True, False]] * 2) == [[0, 0, 0], [0, 0, 1]]


def test_another_kernel_parts_samples_of_equal_noise() -> None:
    noise = [[0, 0, 0], [0, 0, 0]]
    assert first_alike(noise, [[True, True], [False, True]]) == [[0, 0], [0, 1]]


def test_paths_that_parted_stay_apart() -> None:
    """The second step has the first sample's noise for all."""
    noise = [[0, 0, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0]]
    assert first_alike(noise, [[True] * 3] * 3) == [[0, 0, 0], [0, 1, 1], [0, 1, 1]]


def test_rows_are_those_of_the_batch() -> None:
    noise = torch.tensor([[0, 0], [0, 1]]).repeat(2, 1)
    nothing = torch.zeros(4, 0, dtype=torch.long)
    plan = Plan(torch.ones(4, 1, dtype=torch.bool), noise, nothing)
    assert alike_rows(plan, 2).tolist() == [[0], [0], [2], [2]]


def test_each_group_has_a_plan_of_its_own() -> None:
    """The second group's samples start apart."""
    noise = torch.tensor([[0, 0], [0, 1], [0, 0], [1, 1]])
    nothing = torch.zeros(4, 0, dtype=torch.long)
    plan = Plan(torch.ones(4, 1, dtype=torch.bool), noise, nothing)
    assert alike_rows(plan, 2).tolist() == [[0], [0], [2], [3]]
