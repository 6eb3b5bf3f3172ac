from __future__ import annotations

import math

import pytest

from bpgo.analysis.statistics.claims import (
    CONTRADICTED,
    SUPPORTED,
    Check,
    claim_p,
    overall,
)
from bpgo.analysis.statistics.critical import EQUIVALENT, UNRESOLVED


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
        (case(-0.05, 0.08, margin=0.1), EQUIVALENT),
        (case(0.02, 0.08, margin=0.1), EQUIVALENT),
        (case(0.02, 0.12, margin=0.1), SUPPORTED),
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


def test_equivalent_tests_support_no_claim_and_contradict_none():
    good, same, open_ = case(0.2, 0.3), case(-0.01, 0.01, margin=0.1), case(-0.1, 0.1)
    assert overall([good, same]) == EQUIVALENT
    assert overall([good, same, open_]) == UNRESOLVED
    assert overall([same, case(-0.3, -0.2)]) == CONTRADICTED


def test_p_values_of_an_interval():
    """An interval that touches zero has the two-sided p-value of 1 less its confidence."""
    right, wrong = case(0.0, 0.2).p_values(0.95)
    assert (right, wrong) == pytest.approx((0.025, 0.975))
    assert case(0.0, 0.2, above=False).p_values(0.95) == pytest.approx((0.975, 0.025))
    assert case(math.nan, math.nan).p_values(0.95) == (1, 1)
    assert case(0.1, 0.1).p_values(0.95) == (0, 1)


def test_a_claim_counts_its_tests():
    """All must hold: the weakest decides. Any may fail it, or be enough: their number counts."""
    touches, clear = case(0.0, 0.2), case(0.1, 0.12)
    assert claim_p([touches, clear], 0.95) == pytest.approx(0.05)
    against = case(-0.2, 0.0)
    assert claim_p([against, case(-0.1, 0.1)], 0.95) == pytest.approx(2 * 2 * 0.025)
    either = [case(0.0, 0.2, any_group="falls"), case(-0.1, 0.1, any_group="falls")]
    assert claim_p(either, 0.95) == pytest.approx(2 * 2 * 0.025)


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
