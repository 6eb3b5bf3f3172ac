"""Counts of a run by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bpgo.analysis.statistics.convergence import cost as cost_of
from bpgo.analysis.statistics.data import Collected
from bpgo.analysis.tables.cost import cost
from bpgo.config.variants import SweepSettings


def metrics(arm, seed, trained, others=0.0):
    """Two iterations of a run."""
    one = {"experiment": "ambiguous", "arm": arm, "seed": seed, "seconds": 1.0}
    counts = {"rollout_passes": 100.0, "trained_passes": trained, "other_passes": others}
    return [{**one, **counts, "iteration": iteration} for iteration in (1, 2)]


def frame_of(rows):
    return cost_of(Collected({}, pd.DataFrame(rows), pd.DataFrame(), pd.DataFrame(), {}))


def test_passes_of_a_run_are_summed_and_an_arm_is_charged_for_more(settings):
    frame = frame_of(
        metrics("grpo", 1, 50.0) + metrics("grpo", 2, 70.0) + metrics("bpgo", 1, 60.0, others=90.0)
    )
    assert frame.set_index(["arm", "seed"])["trained_passes"].to_dict() == {
        ("bpgo", 1): 120.0,
        ("grpo", 1): 100.0,
        ("grpo", 2): 140.0,
    }
    table = cost(settings, frame, "")
    rows = {row[0].text: [cell.text for cell in row[1:]] for row in table.blocks[0].rows}
    sizes, steps = settings.rollout, settings.training.optimizer_steps
    samples = 2 * sizes.prompts_per_iteration * sizes.group_size
    given = ["2", f"{2 * steps:,}", f"{samples:,}", f"{samples:,}"]
    # 200 + 3 * 120 = 560 for GRPO, and 200 + 3 * 120 + 180 = 740
    assert rows["GRPO"] == ["2", *given, "200", "120", "0", "1.00"]
    assert rows["BPGO"] == ["1", *given, "200", "120", "180", "1.32"]


def test_runs_of_earlier_versions_have_no_counts(settings):
    rows = metrics("grpo", 1, 50.0)
    for row in rows:
        del row["other_passes"]
    frame = frame_of(rows)
    assert np.isnan(frame["other_passes"].iloc[0])
    row = cost(settings, frame, "").blocks[0].rows[0]
    assert [cell.text for cell in row[-3:]] == ["100", "n/a", "n/a"]


@pytest.mark.parametrize("arm", ["grpo", "bpgo"])
def test_without_runs_there_are_no_rows(settings, arm):
    frame = frame_of(metrics(arm, 1, 50.0))
    assert not cost(settings, frame[frame["arm"] == "none"], "").blocks[0].rows


def test_arms_of_a_sweep_are_counted_with_their_own_sizes(settings):
    entry = {"experiment": "ambiguous", "arm": "grpo", "setting": "rollout.group_size"}
    sweep = SweepSettings.model_validate({**entry, "values": [24]})
    arms = settings.arms | {"grpo_group_size_24": settings.arms["bpgo"]}
    swept = settings.model_copy(update={"sweeps": {"size": sweep}, "arms": arms})
    frame = frame_of(metrics("grpo", 1, 50.0) + metrics("grpo_group_size_24", 1, 100.0))
    own, other = cost(swept, frame, "").blocks[0].rows
    samples = 2 * settings.rollout.prompts_per_iteration
    assert own[4].text == f"{samples * settings.rollout.group_size:,}"
    assert other[4].text == f"{samples * 24:,}"
