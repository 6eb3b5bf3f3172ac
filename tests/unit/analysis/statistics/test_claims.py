from __future__ import annotations

import math

import pytest

from bpgo.analysis.statistics.claims import CONTRADICTED, SUPPORTED, UNRESOLVED, Check, overall


def case(low, high, **changes):
    return Check("claim", "quantity", (low + high) / 2, low, high, 3, **changes)


@pytest.mark.parametrize(
    ("test", "verdict"),
    [
        (case(0.1, 0.2), SUPPORTED),
        (case(-0.2, -0.1), CONTRADICTED),
        (case(-0.1, 0.2), UNRESOLVED),
        (case(0.0, 0.2), UNRESOLVED),
        (case(0.1, 0.2, above=False), CONTRADICTED),
        (case(-0.2, -0.1, above=False), SUPPORTED),
        (case(0.99, 1.02, above=False, null=1.05), SUPPORTED),
        (case(1.06, 1.2, above=False, null=1.05), CONTRADICTED),
        (case(math.nan, math.nan), UNRESOLVED),
        (case(0.0, 0.0), UNRESOLVED),
    ],
)
def test_verdict_follows_the_interval(test, verdict):
    assert test.verdict() == verdict


def test_a_claim_needs_all_its_tests():
    good, bad, open_ = case(0.1, 0.2), case(-0.2, -0.1), case(-0.1, 0.1)
    assert overall([good, good]) == SUPPORTED
    assert overall([good, open_]) == UNRESOLVED
    assert overall([good, bad, open_]) == CONTRADICTED
    assert overall([]) == UNRESOLVED


def test_one_of_a_group_is_enough():
    good, bad, open_ = (
        case(*bounds, any_group="falls") for bounds in ((0.1, 0.2), (-0.2, -0.1), (-0.1, 0.1))
    )
    assert overall([case(0.1, 0.2), good, bad]) == SUPPORTED
    assert overall([case(0.1, 0.2), open_, bad]) == UNRESOLVED
    assert overall([case(0.1, 0.2), bad, bad]) == CONTRADICTED
    assert overall([case(-0.2, -0.1), good]) == CONTRADICTED


def test_claims_on_known_effects(frames):
    found = frames["claims"].drop_duplicates(["experiment", "claim"])
    verdicts = found.set_index(["experiment", "claim"])["claim_verdict"]
    assert verdicts["ambiguous", "premise"] == SUPPORTED
    assert verdicts["ambiguous", "held_out"] == SUPPORTED
    assert verdicts["ambiguous", "overoptimization"] == SUPPORTED
    assert verdicts["clear", "overoptimization"] == CONTRADICTED
    assert verdicts["clear", "premise"] == UNRESOLVED
    assert verdicts["ambiguous", "cost"] == SUPPORTED
    assert ("clear", "parts") not in verdicts.index
    assert ("ambiguous", "control") not in verdicts.index
