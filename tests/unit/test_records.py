"""What passes between the rooms."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from bpgo.errors import UserError, suggest
from bpgo.records import Calibration, PromptBatch


def test_prompt_batch_rows() -> None:
    batch = PromptBatch(["a", "b", "c"], ["x", "y", "z"], [0.0, 0.5, 1.0])
    assert len(batch) == 3
    assert batch[1:] == PromptBatch(["b", "c"], ["y", "z"], [0.5, 1.0])
    assert batch[[2, 0, 2]] == PromptBatch(["c", "a", "c"], ["z", "x", "z"], [1.0, 0.0, 1.0])
    with pytest.raises(dataclasses.FrozenInstanceError):
        batch.ids = []  # type: ignore[misc]


def test_calibration_round_trip(tmp_path: Path) -> None:
    value = Calibration(0.1, 0.2, -1 / 3, {"p0": 1e-17, "p1": 0.3})
    value.save(tmp_path / "calibration.json")
    assert Calibration.load(tmp_path / "calibration.json") == value


@pytest.mark.parametrize(
    "text", ["", "[1, 2]", "3", '{"mean": 1}', '{"mean": 1, "std": 1, "minimum": 0, "more": 1}']
)
def test_not_a_calibration(text: str, tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    path.write_text(text)
    with pytest.raises(UserError, match="is not a calibration") as caught:
        Calibration.load(path)
    assert str(path) in str(caught.value)


def test_missing_calibration(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is missing: run `calibrate` first"):
        Calibration.load(tmp_path / "calibration.json")


def test_suggestions() -> None:
    assert suggest("gpro", ["grpo", "bpgo"]) == " Did you mean 'grpo'?"
    assert suggest("zzz", ["grpo", "bpgo"]) == ""
