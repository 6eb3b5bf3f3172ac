"""The window over a run, by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpgo.config.settings import RolloutSettings
from bpgo.core.window import WindowSettings, shortened
from bpgo.errors import UserError
from bpgo.seeding import generator

VALUES: dict[str, Any] = {
    "size": 2,
    "strategy": "progressive",
    "stride": 1,
    "iterations": 2,
    "roll_back": True,
    "last_iterations": 1,
    "decay_from": 1,
    "decay_rate": math.log(2),
}


def window(**changes: Any) -> WindowSettings:
    return WindowSettings.model_validate({**VALUES, **changes})


def over(chosen: WindowSettings, iterations: int, end: int = 4) -> list[list[int]]:
    """The steps of each iteration from the first."""
    return [chosen.steps(n + 1, end, generator(7, n)) for n in range(iterations)]


def test_it_moves_is_cut_short_and_starts_again() -> None:
    turn = [[0, 1], [0, 1], [1, 2], [1, 2], [2, 3], [2, 3], [3], [3]]
    assert over(window(), 10) == [*turn, [0, 1], [0, 1]]


def test_without_roll_back_it_stays_at_its_last_place() -> None:
    assert over(window(roll_back=False), 12)[6:] == [[3]] * 6


def test_a_stride_of_its_size_has_no_empty_window_at_the_end() -> None:
    assert over(window(stride=2, iterations=1), 5) == [[0, 1], [2, 3], [0, 1], [2, 3], [0, 1]]


def test_without_a_stride_it_never_moves() -> None:
    assert over(window(stride=0), 9) == [[0, 1]] * 9


def starts(chosen: WindowSettings, iterations: int) -> list[int]:
    return [steps[0] for steps in over(chosen, iterations)]


def test_decay_falls_linearly_to_the_last_place() -> None:
    # 4 (1 - p) + p for p = 0, 1/4, 1/2, 3/4, rounded down: 4, 3, 2, 1
    found = starts(window(strategy="decay", iterations=4), 11)
    assert found == [0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 0]


def test_exponential_decay_halves_after_a_place() -> None:
    found = starts(window(strategy="exp_decay", iterations=4), 12)
    assert found == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 0]


def test_random_windows_are_whole_everywhere_and_named_by_the_generator() -> None:
    chosen = window(strategy="random")
    found = over(chosen, 60)
    assert {tuple(steps) for steps in found} == {(0, 1), (1, 2), (2, 3)}
    assert over(chosen, 60) == found


@given(
    st.sampled_from(["progressive", "random", "decay", "exp_decay"]),
    st.integers(1, 6),
    st.integers(0, 9),
    st.integers(1, 5),
    st.booleans(),
    st.integers(1, 200),
)
def test_no_window_is_empty_or_leaves_the_schedule(
    strategy: str, size: int, stride: int, iterations: int, roll_back: bool, iteration: int
) -> None:
    changes = {"strategy": strategy, "size": size, "stride": stride, "iterations": iterations}
    steps = window(**changes, roll_back=roll_back).steps(iteration, 6, generator(0))
    assert steps
    assert steps == list(range(steps[0], steps[-1] + 1))
    assert 0 <= steps[0] <= steps[-1] < 6
    assert len(steps) <= size


def sizes(steps: int, tail: int = 1) -> RolloutSettings:
    return RolloutSettings(
        prompts_per_iteration=2, group_size=4, steps=steps, deterministic_tail=tail
    )


def test_it_never_has_the_last_two_steps_nor_the_deterministic_tail() -> None:
    assert window().end(sizes(8), "window") == 6
    assert window().end(sizes(8, tail=3), "window") == 5


def test_a_window_that_does_not_fit_is_refused() -> None:
    with pytest.raises(UserError, match=r"^window.size: 3 is more than the 2 steps .* of 4 \("):
        window(size=3).end(sizes(4), "window")


def test_published_examples_of_a_shortened_way() -> None:
    assert shortened(4, 25, 0.4) == [4, 7, 10, 13, 16, 19, 22, 25]
    assert shortened(4, 25, 0.2) == [4, 11, 18, 25]
    assert len(shortened(18, 25, 0.4)) == 3


def test_a_shortened_way_always_arrives() -> None:
    assert shortened(23, 25, 0.2) == [23, 25]  # published: the point 23 alone
    assert shortened(4, 9, 1.0) == [4, 5, 6, 7, 8, 9]


def test_it_may_be_kept_to_the_first_steps() -> None:
    """Flow-GRPO-Fast: a place of [0, 3) for two steps."""
    sizes = RolloutSettings(steps=8, prompts_per_iteration=1, group_size=2)
    kept = window(strategy="random", within=3)
    end = kept.end(sizes, "window")
    assert kept.places(end) == [0, 1]
    assert {tuple(steps) for steps in over(kept, 40, end)} == {(0, 1), (1, 2)}
    with pytest.raises(UserError, match=r"^window.size: 4 .* the 3 steps .* window.within is 3$"):
        window(size=4, within=3).end(sizes, "window")
    with pytest.raises(UserError, match=r"^window.within: 7 is more than the 6 steps"):
        window(within=7).end(sizes, "window")
