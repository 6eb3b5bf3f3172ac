"""What equal tuning chooses: the largest mean over seeds, the first of equals, none that lacks."""

from __future__ import annotations

import math

import pandas as pd

from bpgo.analysis.statistics.tuning import ROWS, chosen_names, tuning_summary

NAN = math.nan


def rows(arm: str, *gains: tuple[float, ...]) -> list[tuple[object, ...]]:
    """Of candidates, each with its gain by seed; `settings` is the candidate's number."""
    return [
        (arm, number, f"{arm}_{number}", seed, gain, "" if gain == gain else "lost", f"{number}")
        for number, each in enumerate(gains)
        for seed, gain in enumerate(each)
    ]


def summary(*parts: list[tuple[object, ...]]) -> pd.DataFrame:
    frame = pd.DataFrame([row for part in parts for row in part], columns=ROWS)
    return tuning_summary(frame).set_index("arm")


def test_the_largest_mean_over_seeds_is_chosen() -> None:
    found = summary(rows("a", (1.0, 3.0), (4.0, 1.0), (2.4, 2.4))).loc["a"]
    assert found["chosen"] == 1
    assert found["gain"] == 2.5
    assert found["second"] == 2.4
    assert found["as_it_stands"] == 2.0
    assert found["settings"] == "1"
    assert math.isclose(found["sd"], 3 / math.sqrt(2))


def test_a_candidate_that_lacks_a_seed_is_never_chosen() -> None:
    found = summary(rows("a", (1.0, 1.0), (9.0, NAN), (2.0, 2.0))).loc["a"]
    assert (found["chosen"], found["failed"], found["second"]) == (2, 1, 1.0)


def test_of_equal_ones_the_first_is_chosen_and_others_are_counted() -> None:
    found = summary(rows("a", (0.0,), (2.0,), (1.0,), (2.0,))).loc["a"]
    assert (found["chosen"], found["tied"], found["second"]) == (1, 1, 2.0)


def test_an_arm_without_any_gain_is_shown_and_left_out_of_what_is_chosen() -> None:
    found = summary(rows("a", (NAN,), (NAN,)), rows("b", (-1.0,), (-2.0,)))
    assert math.isnan(found.loc["a", "gain"])
    assert (found.loc["a", "chosen"], found.loc["a", "failed"]) == (0, 2)
    assert chosen_names(found.reset_index()) == {"b": "b_0"}
