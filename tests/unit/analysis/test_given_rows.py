"""Policies that were trained elsewhere beside trained arms, in the statistics."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pytest
import synthetic

from bpgo.analysis.collect import collect
from bpgo.analysis.figures.effects import forest
from bpgo.analysis.statistics.bootstrap import Bootstrap
from bpgo.analysis.statistics.convergence import convergence
from bpgo.analysis.statistics.courses import courses_of
from bpgo.analysis.statistics.data import load_collected
from bpgo.analysis.statistics.differences import differences
from bpgo.analysis.statistics.final import curves, final_scores, gains
from bpgo.config.given import GivenPolicy

GIVEN = {"theirs": GivenPolicy(title="Theirs", lora="their.safetensors")}
# One kept policy alone: the course of a run has as many points as what is known of a given one.
SIZES = {"bootstrap_samples": 20, "clear": False, "sweep": (), "snapshot_every": 20}


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """(settings, scores, all) without and with a given policy, of the same files."""
    alone = synthetic.make_settings(**{**synthetic.SMALL, **SIZES})
    beside = alone.model_copy(update={"policies": GIVEN})
    root = tmp_path_factory.mktemp("given")
    synthetic.write_root(beside, root)
    collect(beside, root, root / "collected")
    data = [load_collected(settings, root / "collected") for settings in (alone, beside)]
    return [
        (settings, each.scores["ambiguous"], each)
        for settings, each in zip((alone, beside), data, strict=True)
    ]


def test_the_arms_intervals_do_not_change(both):
    """A policy that varies by noise alone has no part in the variance of training."""
    keys = ["arm", "reference", "reward"]
    alone, beside = (
        differences(settings, scores, Bootstrap(20, 0.95, 0)).set_index(keys)
        for settings, scores, _ in both
    )
    same = beside.loc[alone.index]
    assert len(beside) > len(alone)
    for column in ("difference", "low", "high", "df", "detectable_alone"):
        assert same[column].equals(alone[column]), column
    wider = same["simultaneous_high"] - alone["simultaneous_high"]
    assert (wider > 0).all(), "one difference more shares the column"
    mine = beside.loc[("theirs", "base", "scenes_ambiguous_a")]
    assert mine["low"] < 0.8 < mine["high"], "its made-up gain"


def test_its_differences_are_drawn_with_the_arms(both):
    _, (settings, scores, _) = both
    rows = differences(settings, scores, Bootstrap(20, 0.95, 0))
    figure = forest(settings, {"differences": rows})
    [axes, *_] = figure.axes
    place = [label.get_text() for label in axes.get_yticklabels()].index("Theirs (given)")
    drawn = [line for line in axes.lines if list(line.get_ydata()) == [place]]
    plt.close(figure)
    assert drawn


def test_it_ends_where_the_arms_do_and_has_no_course(both):
    _, (settings, scores, data) = both
    bootstrap = Bootstrap(20, 0.95, 0)
    assert scores.end("theirs") == scores.end("bpgo") == 20
    assert "theirs" in set(final_scores(settings, scores, bootstrap)["arm"])
    courses = {arm for arm, _ in courses_of(settings, scores, data.harm)}
    assert courses == set(curves(settings, scores, bootstrap)["arm"])
    assert courses == set(gains(settings, scores)["arm"])
    assert courses == set(convergence(settings, data)["arm"])
    assert courses == {*settings.experiments["ambiguous"].arms}
