"""Measures of worlds that were made so that the answer is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bpgo.analysis.statistics.worlds import Groups, partial_correlation, world_statistics
from bpgo.analysis.tables.format import to_markdown
from bpgo.analysis.tables.worlds import BLOCKS, worlds_table

N, G = 600, 12


def made(shared: float = 0.0, hint: float = 0.0, **changes) -> Groups:
    """Judges whose errors correlate at `shared`; group means that fall by `hint` with ambiguity.

    Reliability falls evenly with ambiguity, and with nothing else.
    """
    random = np.random.default_rng(0)
    ambiguity = np.repeat([0.0, 0.5, 1.0], N // 3)
    oracle = random.normal(size=(N, G))
    common = random.normal(size=(N, G))

    def pool() -> np.ndarray:
        own = random.normal(size=(N, G))
        error = np.sqrt(shared) * common + np.sqrt(1 - shared) * own
        return 2 * oracle + error + 5 - hint * ambiguity[:, None]

    pools = {name: pool() for name in "abc"}
    gamma = 0.6 - 0.4 * ambiguity + 0.1 * random.normal(size=N)
    values = {
        "prompts": [f"p{k}" for k in range(N)],
        "ambiguity": ambiguity,
        "pools": pools,
        "oracle": oracle,
        "counted": np.round(oracle),
        "gamma": gamma,
        "counted_gamma": gamma,
        "anchors": {"moving_average": np.full(N, 5.0), "sft_mean": pools["a"].mean(axis=1)},
    }
    return Groups(**{**values, **changes})


def figures(groups: Groups) -> dict[str, float]:
    return dict(world_statistics(groups, 200).set_index("measure")["estimate"])


@pytest.mark.parametrize("shared", [0.0, 0.5, 1.0])
def test_judges_are_as_alike_as_their_errors(shared: float) -> None:
    """Whatever they have in common by being right does not count."""
    found = figures(made(shared=shared))
    assert found["judges_a_b"] == pytest.approx(shared, abs=0.06)
    assert found["judges_a_c"] == pytest.approx(shared, abs=0.06)


def test_a_mean_that_follows_ambiguity_tells_of_reliability_by_that_alone() -> None:
    found = figures(made(hint=20.0))
    assert found["mean_ambiguity"] == pytest.approx(-0.94, abs=0.03)  # a third of the pairs is tied
    assert found["by_mean"] > 0.75
    assert abs(found["by_mean_fixed"]) < 0.1
    assert found["by_moving_average"] == pytest.approx(found["by_mean"])
    plain = figures(made())
    assert abs(plain["mean_ambiguity"]) < 0.1
    assert abs(plain["by_mean"]) < 0.1


def test_a_signal_that_is_constant_has_no_correlation() -> None:
    """Each mean less itself."""
    frame = world_statistics(made(), 50).set_index("measure")
    assert np.isnan(frame.loc["by_sft_mean", ["estimate", "low", "high"]].astype(float)).all()


def test_reliability_and_the_base_policy_by_place() -> None:
    groups = made()
    known = np.arange(N) % 4 > 0
    groups = made(
        gamma=np.where(known, groups.gamma, np.nan),
        counted=np.where(np.arange(N)[:, None] < 60, 1.0, groups.counted),
        oracle=np.where(groups.ambiguity[:, None] > 0.7, 0.9, 0.5) + 0.01 * groups.oracle,
    )
    found = world_statistics(groups, 50).set_index("measure")
    assert found.estimate["reliability_specified"] == pytest.approx(0.6, abs=0.03)
    assert found.estimate["reliability_open"] == pytest.approx(0.2, abs=0.03)
    assert found.n_groups["reliability_open"] == 150
    assert found.estimate["oracle_specified"] == pytest.approx(0.5, abs=0.01)
    assert found.estimate["oracle_open"] == pytest.approx(0.9, abs=0.01)
    assert found.estimate["constant"] == 0
    assert found.estimate["counted_constant"] == pytest.approx(0.1, abs=0.02)
    known = found[found.estimate.notna()]
    assert len(found) - len(known) == 4, "each mean less itself"
    assert (known.low <= known.high).all()


def test_intervals_are_over_prompts_and_not_over_groups() -> None:
    """Ten groups of each of sixty prompts, all alike: as wide as with one group of each."""
    value = np.random.default_rng(1).normal(size=60)
    wide = []
    for times in (1, 10):
        repeated = np.repeat(value, times)
        count = len(repeated)
        groups = made(
            prompts=[f"p{k // times}" for k in range(count)],
            ambiguity=np.zeros(count),
            oracle=np.tile(repeated[:, None], G),
            gamma=np.zeros(count),
            counted_gamma=np.zeros(count),
            counted=np.ones((count, G)),
            pools={name: np.random.default_rng(2).normal(size=(count, G)) for name in "abc"},
            anchors={},
        )
        row = world_statistics(groups, 500).set_index("measure").loc["oracle_specified"]
        wide.append(row.high - row.low)
    assert wide[0] == pytest.approx(wide[1], rel=1e-9)
    assert wide[0] == pytest.approx(2 * 1.96 * value.std() / np.sqrt(60), rel=0.15)


def test_nothing_of_a_kind_is_not_defined() -> None:
    found = world_statistics(made(ambiguity=np.full(N, 0.5)), 50).set_index("measure")
    for name in ("judges_a_b", "oracle_open", "reliability_specified", "mean_ambiguity"):
        assert np.isnan(found.estimate[name])


def test_partial_correlation_of_known_moments() -> None:
    """x = z + e, y = z + f with unit variances: .5, and nothing once z is known."""
    moments = [[2.0, 1.0, 1.0], [1.0, 2.0, 1.0], [1.0, 1.0, 1.0]]
    arrays = [[np.array([value]) for value in row] for row in moments]
    assert partial_correlation([row[:2] for row in arrays[:2]])[0] == pytest.approx(0.5)
    assert partial_correlation(arrays)[0] == pytest.approx(0.0)


def test_the_table_has_every_measure_and_world() -> None:
    frame = world_statistics(made(), 50)
    both = [frame.assign(world=world) for world in ("clear", "control")]
    table = worlds_table(pd.concat(both), N, G)
    assert {name for rows in BLOCKS.values() for name in rows} == set(frame["measure"])
    text = to_markdown(table)
    assert "| Measure | clear | control |" in text
    assert f"{N} groups of {G} samples" in text
