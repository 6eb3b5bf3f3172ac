"""The published run can be read: its configuration is one of today's, and of its scores."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from bpgo.analysis.roles import own_value
from bpgo.analysis.statistics.data import load_collected
from bpgo.config.resolve import load, load_resolved
from bpgo.config.runs import Run
from bpgo.errors import UserError
from bpgo.storage.files import read_json, repository_root

REFERENCE = repository_root() / "results" / "reference"
PARTS = [
    part.relative_to(REFERENCE).as_posix()
    for run in (".", "scenes_t2v", "scenes_i2v")
    for part in (REFERENCE / run, *(REFERENCE / run).glob("second_*"))
    if (part / "config.yaml").exists()
]


@pytest.mark.parametrize("part", PARTS)
def test_the_configuration_is_that_of_the_scores(part):
    settings = load_resolved(REFERENCE / part / "config.yaml")
    collected = REFERENCE / part / "collected"
    account = read_json(collected / "runs.json")
    runs = {Run(run["experiment"], run["arm"], run["seed"]) for run in account["runs"]}
    assert set(settings.runs()) == runs
    scores = pd.read_parquet(collected / "scores.parquet", columns=["experiment", "reward"])
    for name in settings.experiments:
        scored = scores[scores.experiment == name].reward
        assert set(settings.rewards_of(name)) == set(scored)


@pytest.mark.parametrize("part", PARTS)
def test_a_changed_table_is_told(part, tmp_path):
    """One changed bit of published scores; each account knows the digests of its tables."""
    settings = load_resolved(REFERENCE / part / "config.yaml")
    folder = Path(shutil.copytree(REFERENCE / part / "collected", tmp_path / "collected"))
    assert load_collected(settings, folder).scores
    for table in sorted(folder.glob("*.parquet")):
        whole = bytearray(table.read_bytes())
        whole[len(whole) // 2] ^= 1
        table.write_bytes(whole)
        with pytest.raises(UserError, match=table.name):
            load_collected(settings, folder)
        whole[len(whole) // 2] ^= 1
        table.write_bytes(whole)


@pytest.mark.parametrize("part", PARTS)
def test_the_notes_state_its_digests(part):
    notes = (REFERENCE / "README.md").read_text(encoding="utf-8")
    account = read_json(REFERENCE / part / "collected" / "runs.json")
    [row] = [line for line in notes.splitlines() if line.startswith(f"| `{part}`")]
    assert account["config_digest"] in row
    assert all(run["code_digest"] in row for run in account["runs"])


@pytest.mark.parametrize("part", PARTS)
def test_swept_arms_have_the_values_they_are_named_for(part):
    settings = load_resolved(REFERENCE / part / "config.yaml")
    for sweep in settings.sweeps.values():
        for value in sweep.values:
            assert own_value(settings, sweep.arm_at(value), sweep.setting) == value


def test_what_the_published_search_chose_is_an_overlay():
    tuning = REFERENCE / "tuning"
    tuned = load([REFERENCE.parents[1] / "config" / "config.yaml", tuning / "chosen.yaml"])
    chosen = pd.read_csv(tuning / "tuning.csv").set_index("arm")["settings"].map(json.loads)
    rates = {arm: values["learning_rate"] for arm, values in chosen.items()}
    assert tuned.training.learning_rates == rates
    assert set(rates) == set(load_resolved(tuning / "config.yaml").tune.ranges)
