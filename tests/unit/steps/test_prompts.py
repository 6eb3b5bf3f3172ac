"""Prompt sets: splits share nothing; a bad line is named."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from tiny_world import tiny_settings

from bpgo.errors import UserError
from bpgo.records import PromptBatch
from bpgo.registry import load_prompts_class
from bpgo.steps.prompts import read_prompts, write_prompts

GOOD = '{"id": "p0", "text": "a red circle", "ambiguity": 0.5}'


def written(path: Path, split: str, **prompts: int) -> PromptBatch:
    settings = tiny_settings(path, prompts={"train": 200, "evaluation": 200, **prompts})
    write_prompts(settings, split, path / f"{split}.jsonl")
    return read_prompts(path / f"{split}.jsonl")


def test_splits_share_no_prompt(tmp_path: Path) -> None:
    train, evaluation = (written(tmp_path, split) for split in ("train", "evaluation"))
    assert len(train) == len(set(train.texts)) == 200
    assert not set(train.texts) & set(evaluation.texts)
    assert not set(train.ids) & set(evaluation.ids)
    assert min(train.ambiguities) < 0.2 < 0.8 < max(train.ambiguities)


def test_same_settings_same_file(tmp_path: Path) -> None:
    first = written(tmp_path, "train")
    content = (tmp_path / "train.jsonl").read_bytes()
    assert written(tmp_path, "train") == first
    assert (tmp_path / "train.jsonl").read_bytes() == content
    assert written(tmp_path, "train", seed=1).texts != first.texts


def test_unknown_split(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'test' is unknown\. Allowed: train, evaluation"):
        write_prompts(tiny_settings(tmp_path), "test", tmp_path / "test.jsonl")
    assert not list(tmp_path.iterdir())


def test_more_prompts_than_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run_out(*_arguments: object) -> None:
        raise ValueError("could not find 200 distinct captions")

    monkeypatch.setattr("bpgo.scenes.captions.sample_captions", run_out)
    with pytest.raises(UserError, match=r"prompts\.train: 200 is too many: could not find 200"):
        written(tmp_path, "train")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("", "is not JSON"),
        ("a red circle", "is not JSON"),
        ('["p1", "a red circle"]', "needs a JSON object"),
        ('{"id": "p1"}', "needs a JSON object"),
        ('{"text": "a red circle"}', "needs a JSON object"),
        ('{"id": "p1", "text": 3}', "needs a JSON object"),
        ('{"id": "p1", "text": "  "}', "'text' is empty"),
        ('{"id": 1, "text": "a red circle"}', "id 1"),
        ('{"id": "../p1", "text": "a red circle"}', r"id '\.\./p1'"),
        ('{"id": "..", "text": "a red circle"}', r"id '\.\.'"),
        ('{"id": "", "text": "a red circle"}', "id ''"),
        ('{"id": "p0", "text": "a blue circle"}', "'p0' is given twice"),
        ('{"id": "p1", "text": "a circle", "ambiguity": "high"}', "ambiguity 'high'"),
    ],
)
def test_bad_line(line: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text(f"{GOOD}\n{line}\n")
    with pytest.raises(UserError, match=reason) as caught:
        read_prompts(path)
    assert f"{path}, line 2" in str(caught.value)


def test_file_without_prompts(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    with pytest.raises(UserError, match="no such file"):
        read_prompts(path)
    path.write_text("")
    with pytest.raises(UserError, match="holds 0 prompts, but 1 are needed"):
        read_prompts(path)
    path.write_text(GOOD + "\n")
    with pytest.raises(UserError, match="holds 1 prompts, but 8 are needed"):
        read_prompts(path, needed=8)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="cannot be read"):
        read_prompts(path)
    with pytest.raises(UserError, match="cannot be read"):
        read_prompts(tmp_path)


def test_ambiguity_may_be_missing(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text(json.dumps({"id": "p0", "text": " a cat "}) + "\n")
    batch = read_prompts(path)
    assert batch.texts == ["a cat"]
    assert math.isnan(batch.ambiguities[0])


def test_prompts_that_a_reward_cannot_judge_are_refused_before_training(tmp_path: Path) -> None:
    """The oracle reads the captions of its world alone; the first job says so, not the last."""
    (tmp_path / "mine.jsonl").write_text(
        '{"text": "a red circle"}\n{"text": "A violin beside lemons"}\n'
    )
    file = {"path": str(tmp_path / "mine.jsonl"), "column": "text"}
    own = {"kind": "file", "files": {"mine": file}, "train": 1, "evaluation": 1}
    settings = tiny_settings(tmp_path)
    prompts = load_prompts_class("file").Settings.model_validate(own)
    settings = settings.model_copy(update={"prompts": prompts})
    refused = []
    for split in ("train", "evaluation"):
        try:
            write_prompts(settings, split, tmp_path / f"{split}.jsonl", settings.rewards)
        except UserError as error:
            refused.append(str(error))
            assert not (tmp_path / f"{split}.jsonl").exists()
    assert len(refused) == 1
    assert "prompts: the reward 'oracle' cannot judge prompt '" in refused[0]
    assert "'A violin beside lemons': unknown word 'A'" in refused[0]
    assert len(refused[0].splitlines()) == 1
