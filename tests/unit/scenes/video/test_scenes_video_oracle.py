"""The video oracle as a judge: one reading of a clip serves all its outputs."""

from __future__ import annotations

from typing import get_args

import pytest
import torch

from bpgo.errors import UserError
from bpgo.records import Samples
from bpgo.scenes.video import oracle
from bpgo.scenes.video import oracle_reward as module
from bpgo.scenes.video.codec import scene_clips
from bpgo.scenes.video.oracle_reward import ScenesVideoOracle, VideoOracleSettings

OUTPUTS = get_args(VideoOracleSettings.model_fields["output"].annotation)


def judge_of(output: str) -> ScenesVideoOracle:
    """The judge with one output."""
    settings = VideoOracleSettings.model_validate(
        {"kind": "scenes_video_oracle", "title": "Oracle", "output": output}
    )
    return ScenesVideoOracle(settings)


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many clips each reading had."""
    found: list[int] = []
    read = oracle.parse_clips

    def counted(clips: torch.Tensor) -> oracle.Parsed:
        found.append(len(clips))
        return read(clips)

    monkeypatch.setattr(oracle, "parse_clips", counted)
    monkeypatch.setattr(module, "_parsed", {})
    return found


def test_all_outputs_read_the_clips_once(readings: list[int]) -> None:
    clips, texts = scene_clips(4, 3, "i2v")
    others, other_texts = scene_clips(3, 4, "i2v")
    first = clips[:, 0]
    expected = oracle.judge(clips, texts, first)
    readings.clear()
    for output in OUTPUTS:
        scores = judge_of(output)(Samples(clips.clone(), texts, first))
        assert torch.equal(scores, getattr(expected, output)), output
    assert readings == [4, 4]  # the clips, and the first frames, which are not kept
    judge_of("soft")(Samples(others, other_texts))
    assert readings[2:] == [3]


def test_another_caption_is_judged_anew(readings: list[int]) -> None:
    clips, texts = scene_clips(4, 3, "t2v")
    turned = texts[1:] + texts[:1]
    judge = judge_of("soft")
    judge(Samples(clips, texts))
    assert torch.equal(judge(Samples(clips, turned)), oracle.judge(clips, turned).soft)


def test_agreement_needs_first_frames() -> None:
    samples = Samples(*scene_clips(2, 3, "t2v"))
    with pytest.raises(UserError, match=r"'Oracle' compares clips .* image to video only"):
        judge_of("first_frame")(samples)


def test_memory_is_bounded(readings: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED", 2)
    judge = judge_of("steadiness")
    for seed in range(5):
        judge(Samples(*scene_clips(1, seed, "t2v")))
    assert len(module._parsed) <= 2
