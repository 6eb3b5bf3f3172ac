"""Names at the ends of curves: none hides another; families apart where arms are many."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from bpgo.analysis.figures import style
from bpgo.analysis.figures.families import FAMILIES, FEW, OTHERS, Shown, family_of, rows_of
from bpgo.analysis.figures.labels import End, apart, end_labels, row_height
from bpgo.config.resolve import default_configfile, load
from bpgo.config.settings import Settings

ARMS = sorted(path.stem for path in (default_configfile().parent / "arms").glob("*.yaml"))


def test_places_that_are_far_apart_stay() -> None:
    assert apart([0.9, 0.1, 0.5], 0.2).tolist() == [0.9, 0.1, 0.5]


def test_places_that_coincide_spread_evenly_around_where_they_were() -> None:
    assert np.allclose(apart([0.5, 0.5, 0.5], 0.1), [0.4, 0.5, 0.6])
    assert np.allclose(apart([0.52, 0.48], 0.1), [0.55, 0.45])


def test_places_stay_inside_or_around_the_middle() -> None:
    assert np.allclose(apart([1.0, 1.0], 0.25), [0.75, 1.0])
    assert np.allclose(apart([0.0, 0.0, 0.0], 0.25), [0.0, 0.25, 0.5])
    assert np.allclose(apart([0.3, 0.1, 0.2], 0.8), [1.3, -0.3, 0.5])


def test_they_keep_their_order_and_distance() -> None:
    wanted = np.random.default_rng(0).random(20)
    found = apart(wanted, 0.05)
    assert (np.argsort(found) == np.argsort(wanted)).all()
    assert np.diff(np.sort(found)).min() >= 0.05 - 1e-12


@pytest.mark.parametrize("count", [3, 12, 26])
def test_no_name_overlaps_another_in_a_picture(count: int) -> None:
    with style.look():
        height = row_height(2.0, count)
        figure = style.new_figure(height + 0.3)
        axes = figure.subplots()
        ends = [End(1.0, 0.5 + 1e-3 * place, "Name", "#000000", "o") for place in range(count)]
        axes.plot([0, 1], [0, 1])
        end_labels(axes, ends, height)
        figure.draw_without_rendering()
        canvas = figure.canvas
        assert isinstance(canvas, FigureCanvasAgg)
        boxes = [text.get_window_extent(canvas.get_renderer()) for text in axes.texts]
    assert len(boxes) == count
    boxes.sort(key=lambda box: box.y0)
    assert all(low.y1 <= high.y0 for low, high in itertools.pairwise(boxes))
    assert boxes[0].y0 >= 0
    assert boxes[-1].y1 <= figure.bbox.y1


def shipped(arms: list[str], families: str = "auto") -> Settings:
    settings = load(default_configfile())
    entry = settings.experiments["ambiguous"].model_copy(update={"arms": arms})
    analysis = settings.analysis.model_copy(update={"families": families})
    return settings.model_copy(update={"experiments": {"ambiguous": entry}, "analysis": analysis})


def test_every_shipped_arm_has_a_family() -> None:
    assert OTHERS not in {family_of(arm) for arm in ARMS}
    assert len({arm for arms in FAMILIES.values() for arm in arms}) == sum(
        len(arms) for arms in FAMILIES.values()
    )
    assert family_of("mine") == OTHERS


def test_few_arms_share_a_row() -> None:
    [row] = rows_of(shipped(ARMS[:FEW]), ["ambiguous"])
    assert (row.arms, row.behind, row.title) == (ARMS[:FEW], [], "ambiguous")


def test_many_arms_stand_by_family_with_the_reference_in_each() -> None:
    arms = [*ARMS, "mine"]
    rows = rows_of(shipped(arms), ["ambiguous"])
    assert [row.family for row in rows] == [*FAMILIES, OTHERS]
    for row in rows:
        assert "grpo" in row.arms
        assert sorted([*row.arms, *row.behind]) == sorted(arms)
    own = [arm for row in rows for arm in row.arms if arm != "grpo"]
    assert sorted(own) == sorted(set(arms) - {"grpo"}), "each once"


def test_the_configuration_may_choose() -> None:
    assert len(rows_of(shipped(ARMS, "together"), ["ambiguous"])) == 1
    assert len(rows_of(shipped(["grpo", "bpgo", "awm"], "apart"), ["ambiguous"])) == 2
    [row] = rows_of(shipped(["grpo"], "apart"), ["ambiguous"])
    assert row.arms == ["grpo"]


def test_arms_of_a_row_differ_in_colour_within_their_family() -> None:
    for row in rows_of(shipped(ARMS), ["ambiguous"]):
        assert len({row.look(arm)[0] for arm in row.arms}) == len(row.arms), row.family
    alone = Shown("ambiguous", "", ["grpo", "awm"], [], "grpo")
    assert alone.look("awm") == style.arm_look("awm")
