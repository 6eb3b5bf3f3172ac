"""`worlds` on a set of weights that nothing was trained for: the table is whole."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from untrained_world import untrained_weights

from bpgo.analysis.tables.worlds import BLOCKS
from bpgo.errors import UserError
from bpgo.storage.digests import write_digests
from bpgo.tools.worlds import worlds


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained_weights(tmp_path_factory.mktemp("world") / "seed_3")


def test_every_measure_of_every_world(weights: Path, tmp_path: Path) -> None:
    worlds(str(weights), 32, tmp_path / "table")
    found = pd.read_csv(tmp_path / "table" / "worlds.csv")
    names = {name for rows in BLOCKS.values() for name in rows}
    assert list(found) == ["world", "measure", "estimate", "low", "high", "n_groups"]
    assert list(dict.fromkeys(found.world)) == ["ambiguous", "control", "hidden", "clear", "hard"]
    assert all(set(rows.measure) == names for _, rows in found.groupby("world"))
    by_name = found.set_index(["world", "measure"])
    assert by_name.n_groups["clear", "constant"] == 32
    assert by_name.n_groups["hard", "oracle_specified"] == 16
    ambiguity = by_name.estimate.xs("mean_ambiguity", level="measure")
    assert np.isfinite(ambiguity).all()
    assert ambiguity["clear"] != ambiguity["control"], "rewards of its own"
    text = (tmp_path / "table" / "worlds.md").read_text()
    assert "| Measure | ambiguous | control | hidden | clear | hard |" in text
    assert "32 groups of 12 samples" in text


def test_worlds_that_are_not_there_have_no_column(weights: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(weights, tmp_path / "seed_3"))
    for name in ("ambiguous", "hidden", "clear"):
        shutil.rmtree(own / "rewards" / name)
    write_digests(own)
    worlds(str(own), 32, tmp_path / "table")
    assert set(pd.read_csv(tmp_path / "table" / "worlds.csv").world) == {"control"}
    shutil.rmtree(own / "rewards")
    write_digests(own)
    with pytest.raises(UserError, match="has all three pools of no world"):
        worlds(str(own), 32, tmp_path / "other")


@pytest.mark.parametrize("count", [-8, 0, 8, 100])
def test_counts_that_say_nothing(count: int, weights: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"--groups: {count} is not allowed: it must be a multiple"):
        worlds(str(weights), count, tmp_path / "table")
    assert not (tmp_path / "table").exists()


def test_weights_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--weights: there is no folder 'results/pretrain/none'"):
        worlds("results/pretrain/none", 32, tmp_path / "table")
    with pytest.raises(UserError, match="is no folder of weights"):
        worlds(str(tmp_path), 32, tmp_path / "table")
