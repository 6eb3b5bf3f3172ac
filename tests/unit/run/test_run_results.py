"""What finished jobs have made, in words."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from bpgo.run.run_results import result_of, seconds_before, share_of
from bpgo.storage.tables import write_table

SETTINGS: Any = SimpleNamespace(
    analysis=SimpleNamespace(main_metric="oracle"), training=SimpleNamespace(iterations=4)
)


@pytest.fixture
def words(tmp_path: Path) -> dict[str, str]:
    """The wildcards of a run that has three of four iterations."""
    folder = tmp_path / "runs" / "clear" / "grpo" / "seed_1"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    rows = [{"iteration": n, "reward_mean": 0.1 * n} for n in (1, 2, 3)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    names = {"experiment": "clear", "arm": "grpo", "seed": "1", "environment": "main"}
    return {"root": str(tmp_path), **names}


def result(rule: str, words: dict[str, str]) -> str | None:
    return result_of(rule, words, lambda _: SETTINGS)


def test_a_training(words: dict[str, str], tmp_path: Path) -> None:
    assert result("train", words) == "training reward 0.100 to 0.300 in 3 iterations"
    assert share_of("train", words, lambda _: SETTINGS) == 0.75
    assert share_of("score", words, lambda _: SETTINGS) is None
    manifest = tmp_path / "runs" / "clear" / "grpo" / "seed_1" / "manifest.json"
    manifest.write_text('{"failed": "iteration 2: a loss is not finite"}')
    assert result("train", words) == "failed: iteration 2: a loss is not finite"


def test_a_training_before_its_first_iteration(words: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "runs" / "clear" / "grpo" / "seed_1" / "metrics.jsonl").unlink()
    assert share_of("train", words, lambda _: SETTINGS) == 0
    assert result("train", words) == "its files cannot be read"


def test_scores_by_the_main_metric(words: dict[str, str], tmp_path: Path) -> None:
    rows = [(0, "oracle", 0.2), (0, "oracle", 0.4), (8, "oracle", 0.5), (8, "other", 9.0)]
    file = tmp_path / "scores" / "clear" / "grpo" / "seed_1" / "main.parquet"
    file.parent.mkdir(parents=True)
    write_table(pd.DataFrame(rows, columns=["iteration", "reward", "score"]), file)
    assert result("score", words) == "oracle 0.300 to 0.500"
    write_table(pd.DataFrame(rows[3:], columns=["iteration", "reward", "score"]), file)
    assert result("score", words) is None  # scores of another environment
    file.write_bytes(b"cut")
    assert result("score", words) == "its files cannot be read"


def test_other_jobs_have_no_line(words: dict[str, str]) -> None:
    assert result("sample", words) is None
    assert result("smoke", {}) is None


def test_seconds_of_earlier_calls(tmp_path: Path) -> None:
    for name, text in {
        "train/clear/grpo/seed_1": "s\th:m:s\n66.5\t0:01:06\n",
        "train/clear/grpo/seed_2": "s\th:m:s\n70\t0:01:10\n",
        "train/clear/grpo/seed_3": "s\n",  # cut
        "score/x": "s\n2\n",
    }.items():
        file = tmp_path / "benchmarks" / f"{name}.tsv"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    assert seconds_before(tmp_path) == {"score": [2.0], "train": [66.5, 70.0]}
    assert seconds_before(tmp_path / "nowhere") == {}
