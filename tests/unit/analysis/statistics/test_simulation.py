"""Coverage within what chance allows, at a size that takes seconds; the components drawn are those
of the file."""

from __future__ import annotations

import numpy as np
import pytest

from bpgo.analysis.simulate import simulate_command
from bpgo.analysis.statistics.simulation import (
    EVERY_ARM,
    ONE_ARM,
    STEADY,
    Component,
    Size,
    components,
    draw,
    simulate,
)
from bpgo.errors import UserError

QUICK = Size(tables=50, columns=5, seeds=(3,), metrics=("i2v_oracle",), resamples=200)


@pytest.fixture(scope="module")
def frame():
    return simulate(QUICK, seed=3)


def rows(frame, collapse):
    return frame[frame["collapse"] == collapse].set_index("method")


def test_intervals_cover_and_bold_cells_are_rare(frame):
    """250 columns of 3 cells with a common arm: a standard error of about 1 % of the cells."""
    steady = rows(frame, STEADY)
    for method in ("pooled t", "two arms, t", "bootstrap"):
        assert steady["coverage"][method] == pytest.approx(0.95, abs=0.035), method
    assert steady["coverage"]["Dunnett"] > 0.95
    assert steady["false_column"]["Dunnett"] == pytest.approx(0.05, abs=0.04)
    assert steady["false_column"]["pooled t"] > steady["false_column"]["Dunnett"]
    assert (steady["false_cell"] + steady["coverage"]).to_numpy() == pytest.approx(1.0)


def test_pooling_halves_the_interval_of_three_seeds(frame):
    width = rows(frame, STEADY)["half_width"]
    assert width["pooled t"] < width["Dunnett"] < width["two arms, t"]
    assert width["pooled t"] < 0.7 * width["bootstrap"]


def test_collapse_in_one_arm_is_a_true_difference(frame):
    assert rows(frame, ONE_ARM)["false_table"].isna().all()
    assert rows(frame, EVERY_ARM)["false_table"].notna().all()
    assert rows(frame, ONE_ARM)["coverage"]["pooled t"] < 0.95


def test_draws_have_the_components_that_were_asked_for():
    random = np.random.default_rng(0)
    component = Component(arms=3, prompts=40, run=0.5, prompt=0.3, interaction=2.0)
    tables = [draw(random, component, 60) for _ in range(200)]
    change = np.stack([table[1] - table[0] for table in tables])
    by_seed = change.mean(axis=2).var(axis=1, ddof=1).mean()
    by_prompt = change.mean(axis=1).var(axis=1, ddof=1).mean()
    assert by_seed == pytest.approx(0.5 + 2.0 / 40, rel=0.04)
    assert by_prompt == pytest.approx(0.3 + 2.0 / 60, rel=0.04)


def test_a_collapsing_run_falls_by_the_depth():
    _, share, depth = components()
    component = Component(arms=3, prompts=2, run=0.0, prompt=0.0, interaction=0.0)
    table = draw(np.random.default_rng(1), component, 4000, ONE_ARM)
    assert set(np.unique(table[1])) == {0.0, -depth}
    assert (table[1, :, 0] < 0).mean() == pytest.approx(share, abs=0.02)
    assert not table[[0, 2]].any()


def test_equal_seeds_give_equal_tables(tmp_path):
    for name in ("one", "two"):
        simulate_command(tmp_path / name, tables=1, seed=5)
    files = {path.name for path in (tmp_path / "one").iterdir()}
    assert files == {"simulation.csv", "simulation.md", "simulation.tex"}
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_an_unknown_metric_is_refused():
    with pytest.raises(UserError, match=r"there is no 'image_orcle'\. Did you mean 'image_oracle'"):
        simulate(Size(metrics=("image_orcle",)))
