"""What passes between the rooms."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from bpgo.errors import UserError, suggest
from bpgo.records import Calibration, PromptBatch, Samples


def test_prompt_batch_rows() -> None:
    batch = PromptBatch(["a", "b", "c"], ["x", "y", "z"], [0.0, 0.5, 1.0])
    assert len(batch) == 3
    assert batch[1:] == PromptBatch(["b", "c"], ["y", "z"], [0.5, 1.0])
    assert batch[[2, 0, 2]] == PromptBatch(["c", "a", "c"], ["z", "x", "z"], [1.0, 0.0, 1.0])
    with pytest.raises(dataclasses.FrozenInstanceError):
        batch.ids = []  # type: ignore[misc]


def test_samples_are_cut_together() -> None:
    pixels = torch.rand(3, 5, 3, 4, 4)
    samples = Samples(pixels, ["x", "y", "z"], pixels[:, 0])
    assert len(samples) == 3
    part = samples[1:]
    assert torch.equal(part.pixels, pixels[1:])
    assert part.texts == ["y", "z"]
    assert part.first_frames is not None
    assert torch.equal(part.first_frames, pixels[1:, 0])
    assert Samples(pixels[:, 0], ["x", "y", "z"])[:2].first_frames is None
    meta = samples.to("meta")
    assert meta.pixels.is_meta
    assert meta.first_frames is not None
    assert meta.first_frames.is_meta


def test_samples_have_a_prompt_each() -> None:
    pixels = torch.rand(3, 3, 4, 4)
    with pytest.raises(ValueError, match="3 samples but 2 texts"):
        Samples(pixels, ["x", "y"])
    with pytest.raises(ValueError, match="3 samples but 1 first frames"):
        Samples(pixels, ["x", "y", "z"], pixels[:1])


def test_calibration_round_trip(tmp_path: Path) -> None:
    value = Calibration(0.1, 0.2, -1 / 3, {"p0": 1e-17, "p1": 0.3})
    value.save(tmp_path / "calibration.json")
    assert Calibration.load(tmp_path / "calibration.json") == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "cannot be read as JSON"),
        ("null", "holds None, which is not an object"),
        ("[1, 2]", "holds [1, 2], which is not an object"),
        ('{"mean": 1}', "has no 'std'"),
        ('{"mean": 1, "std": "x", "minimum": 0}', "std is 'x', which is not a number"),
        ('{"mean": 1, "std": NaN, "minimum": 0}', "NaN is no number"),
        ('{"mean": 1, "std": 1, "minimum": 0, "more": 1}', "'more' is no key of a calibration"),
    ],
)
def test_not_a_calibration(text: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        Calibration.load(path)
    assert str(path) in str(caught.value)
    assert reason in str(caught.value)
    assert "run `calibrate` again" in str(caught.value)


def test_a_changed_calibration_and_anothers(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    Calibration(0.1, 0.25, -1.0).save(path, "calibration of clear")
    with pytest.raises(UserError, match="holds the calibration of clear, not the calibration of x"):
        Calibration.load(path, "calibration of x")
    path.write_text(path.read_text().replace("0.25", "0.75"))
    with pytest.raises(UserError, match="was changed after it was written"):
        Calibration.load(path)


def test_missing_calibration(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file; run `calibrate` again"):
        Calibration.load(tmp_path / "calibration.json")


def test_suggestions() -> None:
    assert suggest("gpro", ["grpo", "bpgo"]) == " Did you mean 'grpo'?"
    assert suggest("zzz", ["grpo", "bpgo"]) == ""
