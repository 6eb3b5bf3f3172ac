"""`instrument` from a search to its table and figure, tiny; the statistics by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tiny_world import ARM, redness, tiny_settings

from bpgo.analysis.statistics.search import figure_of_merit, final_gain, search_statistics
from bpgo.config.search import Search, SearchSettings
from bpgo.errors import UserError
from bpgo.scenes.image.oracle_reward import ScenesOracle
from bpgo.storage.files import read_json, write_text
from bpgo.tools.instrument import measure
from bpgo.tools.instrument.command import instrument

SIZES = {"experiment": "tiny", "seeds": [31, 32], "iterations": 2, "evaluate_every": 1}
FILES = [f"instrument.{kind}" for kind in ("csv", "md", "pdf", "png", "tex")]


@pytest.fixture(scope="module")
def search(tiny_folder: Path) -> Search:
    """Two candidates, one with a moving average."""
    arms = {
        "oracle_reward": {**ARM, "trust": {"rule": "true_reward", "reward": "oracle"}},
        "random_reward": {**ARM, "trust": {"rule": "random_reward"}},
    }
    entry = tiny_settings(tiny_folder).experiments["tiny"].model_dump()
    entry |= {"arms": list(arms), "seeds": [31, 32], "diagnostics": ["oracle"]}
    sizes = {"iterations": 2, "snapshot_every": 2, "checkpoint_every": 2}
    found = {
        name: tiny_settings(
            tiny_folder, arms=arms, experiments={"tiny": entry}, training={**sizes, **changed}
        )
        for name, changed in {
            "plain": {"optimizer_steps": 1},
            "averaged": {"ema_decay": 0.95, "ema_every": 1},
        }.items()
    }
    asked = SearchSettings(**SIZES, prompts=3, batches=3, candidates={name: {} for name in found})
    return Search(asked, found)


@pytest.fixture(autouse=True)
def _every_sample_has_a_score_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oracle finds no shape in what an untrained policy makes."""
    monkeypatch.setattr(ScenesOracle, "__call__", lambda self, samples: redness(samples))


@pytest.fixture(scope="module")
def finished(search: Search, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("search")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ScenesOracle, "__call__", lambda self, samples: redness(samples))
        patch.setattr("bpgo.run.lean_import.import_lean", lambda _kind: None)
        instrument(search, output, None, None)
    return output


def test_a_row_for_each_candidate(finished: Path) -> None:
    table = pd.read_csv(finished / "instrument.csv")
    assert list(table.candidate) == ["plain", "averaged"]
    assert set(table.n_seeds) == {2}
    assert table.drop(columns="candidate").notna().all(axis=None)
    assert (table.seconds_a_run > 0).all()
    assert {file.name for file in finished.iterdir()} == {*FILES, "courses.csv", "runs"}
    courses = pd.read_csv(finished / "courses.csv")
    assert len(courses) == 2 * 2 * 2 * 2, "candidates, seeds, anchors, evaluations"
    assert courses.notna().all(axis=None)
    assert "| plain |" in (finished / "instrument.md").read_text()


def test_the_same_command_measures_nothing_again(
    search: Search, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_given: Any) -> None:
        raise AssertionError("it is measured already")

    monkeypatch.setattr(measure, "measure", never)
    instrument(search, finished, None, None)
    other = Search(search.sizes.model_copy(update={"prompts": 4}), search.settings)
    with pytest.raises(AssertionError):
        instrument(other, finished, "plain", 31)


def test_one_job_is_one_file_and_the_same_numbers(
    search: Search, finished: Path, tmp_path: Path
) -> None:
    instrument(search, tmp_path, "averaged", 32)
    [file] = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert file == tmp_path / "runs" / "averaged" / "seed_32.json"
    again, first = (read_json(root / file.relative_to(tmp_path)) for root in (tmp_path, finished))
    assert again["signal"]["ratio"] == first["signal"]["ratio"]
    for anchor in ("oracle_reward", "random_reward"):
        assert again["anchors"][anchor]["course"] == first["anchors"][anchor]["course"]
    base = {found["base"] for found in first["anchors"].values()}
    assert len(base) == 1, "the same policy, prompts and noise"


def test_names_that_are_not_there(search: Search, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--only: 'plane' is no candidate\. Did you mean 'plain'"):
        instrument(search, tmp_path, "plane", None)
    with pytest.raises(UserError, match=r"--seed: 1 is no seed of the search\. Known: 31, 32"):
        instrument(search, tmp_path, None, 1)
    file = tmp_path / "runs" / "plain" / "seed_31.json"
    write_text(file, "{")
    with pytest.raises(UserError, match=r"seed_31\.json: cannot be read: "):
        instrument(search, tmp_path, "plain", 31)


def test_the_last_three_evaluations_are_the_final_gain() -> None:
    assert final_gain([{"gain": gain} for gain in (9.0, 1.0, 2.0, 6.0)]) == 3.0


def test_figure_of_merit_by_hand() -> None:
    assert figure_of_merit([1.0, 3.0]) == pytest.approx(2 / (math.sqrt(2) * math.sqrt(2)))
    assert math.isnan(figure_of_merit([1.0]))
    assert math.isnan(figure_of_merit([1.0, 1.0]))


def test_a_summary_by_hand() -> None:
    def course(gain: float) -> dict[str, Any]:
        return {"seconds": 10.0, "base": 0.5, "course": [{"gain": gain}]}

    found = [
        {
            "candidate": "mine",
            "signal": {"ratio": ratio, "standard_error": 0.03, "seconds": 2.0},
            "anchors": {"oracle_reward": course(gain), "random_reward": course(-0.1)},
        }
        for ratio, gain in ((0.1, 0.2), (0.3, 0.4))
    ]
    [row] = search_statistics(found).to_dict("records")
    assert row["signal_to_noise"] == pytest.approx(0.2)
    assert row["signal_to_noise_se"] == pytest.approx(0.03 / math.sqrt(2))
    assert row["signal_to_noise_per_second"] == pytest.approx(0.1)
    assert row["oracle_gain"] == pytest.approx(0.3)
    assert row["oracle_sd"] == pytest.approx(math.sqrt(0.02))
    assert row["random_gain"] == pytest.approx(-0.1)
    assert row["random_sd"] == 0
    assert row["merit"] == pytest.approx(0.3 / 0.2)
    assert row["seconds_a_run"] == 10
