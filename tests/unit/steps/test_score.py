"""Scoring: every sample by every reward, and what cannot be read is named."""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from tiny_world import tiny_settings
from torch import Tensor

from bpgo.config.runs import Run
from bpgo.config.settings import Settings
from bpgo.errors import NonFiniteError, UserError
from bpgo.records import Samples
from bpgo.rewards import load_reward
from bpgo.scenes.image import oracle_reward as scenes_oracle
from bpgo.steps import stored_samples
from bpgo.steps.prompts import write_prompts
from bpgo.steps.sample import sample_base
from bpgo.steps.score import score_run
from bpgo.storage.tables import write_table

COLUMNS = {
    "experiment",
    "arm",
    "seed",
    "iteration",
    "prompt_id",
    "ambiguity",
    "sample",
    "reward",
    "score",
    "cut",
}


@pytest.fixture(scope="module")
def settings(tiny_folder: Path) -> Settings:
    return tiny_settings(tiny_folder)


@pytest.fixture(scope="module")
def samples(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("score")
    write_prompts(settings, "evaluation", root / "prompts" / "evaluation.jsonl")
    prompts = root / "prompts" / "evaluation.jsonl"
    sample_base(settings, 1, prompts, root / "samples")
    return root / "samples"


@pytest.fixture
def spoilt(samples: Path, tmp_path: Path) -> Path:
    """A copy of the samples, to be spoilt."""
    return Path(shutil.copytree(samples, tmp_path / "samples"))


def scored(settings: Settings, samples: Path, output: Path) -> pd.DataFrame:
    score_run(settings, Run("tiny", "base", 1), samples, "main", output)
    return pd.read_parquet(output)


def refusal(settings: Settings, samples: Path, tmp_path: Path) -> str:
    with pytest.raises(UserError) as caught:
        scored(settings, samples, tmp_path / "scores.parquet")
    assert not (tmp_path / "scores.parquet").exists()
    return str(caught.value)


def test_every_sample_by_every_reward(settings: Settings, samples: Path, tmp_path: Path) -> None:
    table = scored(settings, samples, tmp_path / "scores.parquet")
    index = pd.read_parquet(samples / "index.parquet")
    assert set(table.columns) == COLUMNS
    assert len(table) == 2 * len(index)
    for reward, part in table.groupby("reward"):
        assert part.prompt_id.tolist() == index.prompt_id.tolist()
        assert part["sample"].tolist() == index["sample"].tolist()
        assert reward in ("oracle", "oracle_strict")
    assert set(zip(table.experiment, table.arm, table.seed, strict=True)) == {("tiny", "base", 1)}


def test_prompts_that_a_reward_reads_in_part_are_marked(
    settings: Settings, samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not scored(settings, samples, tmp_path / "scores.parquet").cut.any()
    oracle = type(settings.rewards["oracle"])

    def tokens(_self: Any, texts: list[str]) -> list[int]:
        return [len(text) for text in texts]

    monkeypatch.setattr(oracle, "count_tokens", tokens)
    monkeypatch.setattr(oracle, "longest_prompt", lambda _: 20)
    table = scored(settings, samples, tmp_path / "scores.parquet")
    index = pd.read_parquet(samples / "index.parquet")
    longer = [len(text) > 20 for text in index.text]
    assert table[table.reward == "oracle"].cut.tolist() == longer
    assert 0 < sum(longer) < len(longer)


def test_scores_are_the_rewards_of_the_files(
    settings: Settings, samples: Path, tmp_path: Path
) -> None:
    table = scored(settings, samples, tmp_path / "scores.parquet")
    index = pd.read_parquet(samples / "index.parquet")
    for name in ("oracle", "oracle_strict"):
        reward = load_reward(settings.rewards[name])
        found = table[table.reward == name].score.tolist()
        for row, score in zip(index.itertuples(), found, strict=True):
            pixels = np.array(Image.open(samples / row.path))
            image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
            assert float(reward(Samples(image, [row.text]))) == pytest.approx(score, abs=1e-6)


def test_same_again(settings: Settings, samples: Path, tmp_path: Path) -> None:
    first, second = (scored(settings, samples, tmp_path / f"{name}.parquet") for name in "ab")
    pd.testing.assert_frame_equal(first, second)


@pytest.mark.parametrize("content", [None, b"", b"not a picture", "half"])
def test_an_unreadable_image_is_named(
    content: Any, settings: Settings, spoilt: Path, tmp_path: Path
) -> None:
    path = spoilt / pd.read_parquet(spoilt / "index.parquet").path[2]
    if content is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:60] if content == "half" else content)
    message = refusal(settings, spoilt, tmp_path)
    wanted = "no such file" if content is None else "cannot be read as an image"
    assert f"{path}: {wanted}" in message
    assert "run `sample` again" in message


def test_an_image_of_another_size_is_named(
    settings: Settings, spoilt: Path, tmp_path: Path
) -> None:
    path = spoilt / pd.read_parquet(spoilt / "index.parquet").path[2]
    Image.new("RGB", (16, 24)).save(path)
    assert str(path) in refusal(settings, spoilt, tmp_path)


def test_images_of_several_sizes_are_scored_one_by_one(
    tiny_folder: Path, spoilt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those that the official packages' scores were made with."""
    monkeypatch.setattr(
        scenes_oracle.ScenesOracle, "__call__", lambda _self, samples: samples.pixels[:, 0, 0, 0]
    )
    index = pd.read_parquet(spoilt / "index.parquet")
    sizes = [(16 + row, 24) for row in range(len(index))]
    for row, path in enumerate(index.path):
        Image.new("RGB", sizes[row], (row, 0, 0)).save(spoilt / path)
    write_table(index.drop(columns="sha256"), spoilt / "index.parquet")
    single = tiny_settings(tiny_folder, evaluation={"batch_size": 1})
    found = scored(single, spoilt, tmp_path / "scores.parquet")
    levels = (found[found.reward == "oracle"].score * 255).round().tolist()
    assert levels == list(range(len(index)))
    pairs = tiny_settings(tiny_folder, evaluation={"batch_size": 2})
    message = refusal(pairs, spoilt, tmp_path / "pairs")
    assert f"{spoilt / index.path[1]}: is 24 x 17 pixels" in message


def test_an_index_whose_rows_are_damaged(settings: Settings, spoilt: Path, tmp_path: Path) -> None:
    """Twice scored, a sample counts twice; without a text no reward reads it."""
    path = spoilt / "index.parquet"
    index = pd.read_parquet(path)
    cases = {
        "twice; run `sample` again": pd.concat([index, index[2:3]]),
        "row 3 has no text": index.assign(text=index.text.where(index.index != 2)),
    }
    for wanted, damaged in cases.items():
        write_table(damaged, path)
        message = refusal(settings, spoilt, tmp_path)
        assert wanted in message
        assert str(path) in message


def test_an_index_emptied_by_hand(settings: Settings, spoilt: Path, tmp_path: Path) -> None:
    """It is not that of a run that failed."""
    path = spoilt / "index.parquet"
    pd.read_parquet(path)[:0].to_parquet(path, index=False)
    assert f"{path}: has no seal: it was changed" in refusal(settings, spoilt, tmp_path)


def test_another_seeds_samples(settings: Settings, samples: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds the samples of base/seed_1 .*, not the .*seed_2"):
        score_run(settings, Run("tiny", "base", 2), samples, "main", tmp_path / "scores.parquet")


def test_another_sample_in_a_samples_place(
    settings: Settings, spoilt: Path, tmp_path: Path
) -> None:
    first, second = pd.read_parquet(spoilt / "index.parquet").path[:2]
    shutil.copy(spoilt / first, spoilt / second)
    message = refusal(settings, spoilt, tmp_path)
    assert f"{spoilt / second}: was changed after it was sampled" in message


def test_an_index_that_cannot_be_read(settings: Settings, spoilt: Path, tmp_path: Path) -> None:
    path = spoilt / "index.parquet"
    write_table(pd.read_parquet(path).drop(columns="path"), path)
    assert f"{path}: has no column 'path'" in refusal(settings, spoilt, tmp_path)
    path.write_bytes(b"not a table")
    assert f"{path}: cannot be read" in refusal(settings, spoilt, tmp_path)
    path.unlink()
    assert f"{path}: no such file; run `sample` again" in refusal(settings, spoilt, tmp_path)


def test_unknown_environment(settings: Settings, samples: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no reward runs in 'hps'\. Known: main"):
        score_run(settings, Run("tiny", "base", 1), samples, "hps", tmp_path / "scores.parquet")


def test_rewards_of_other_environments_are_left_to_them(
    tiny_folder: Path, samples: Path, tmp_path: Path
) -> None:
    rewards = {
        "oracle": {"kind": "scenes_oracle", "title": "Oracle"},
        "oracle_strict": {"kind": "scenes_oracle", "title": "Strict", "environment": "other"},
    }
    settings = tiny_settings(tiny_folder, rewards=rewards)
    assert set(scored(settings, samples, tmp_path / "main.parquet").reward) == {"oracle"}
    score_run(settings, Run("tiny", "base", 1), samples, "other", tmp_path / "other.parquet")
    assert set(pd.read_parquet(tmp_path / "other.parquet").reward) == {"oracle_strict"}


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_score_that_is_not_finite_names_reward_and_prompt(
    bad: float,
    settings: Settings,
    samples: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def spoilt(_self: Any, samples: Samples) -> Tensor:
        return torch.full((len(samples),), bad)

    monkeypatch.setattr(scenes_oracle.ScenesOracle, "__call__", spoilt)
    with pytest.raises(NonFiniteError, match=f"reward 'oracle' gives {bad}") as caught:
        scored(settings, samples, tmp_path / "scores.parquet")
    assert "evaluation-00000" in str(caught.value)
    assert not (tmp_path / "scores.parquet").exists()


class Broken:
    """A reward that cannot be loaded until it is mended, and counts what it scores."""

    mended = False
    scored = 0

    def __init__(self, settings: Any, device: str) -> None:
        if not Broken.mended and settings.output == "strict":
            raise UserError(f"reward '{settings.title}': no weights")
        self.real = scenes_oracle.ScenesOracle(settings, device)

    def __call__(self, samples: Samples) -> Tensor:
        Broken.scored += len(samples)
        return self.real(samples)


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bpgo.registry.load_reward_class", lambda _kind: Broken)
    monkeypatch.setattr(Broken, "mended", False)
    monkeypatch.setattr(Broken, "scored", 0)


@pytest.mark.usefixtures("broken")
def test_a_reward_that_fails_loses_no_other(
    settings: Settings, samples: Path, tmp_path: Path
) -> None:
    output, count = tmp_path / "scores.parquet", len(pd.read_parquet(samples / "index.parquet"))
    message = refusal(settings, samples, tmp_path)
    assert message.splitlines()[0] == "reward 'Strict': no weights"
    assert "The scores by oracle are kept" in message
    assert Broken.scored == count
    Broken.mended = True
    table = scored(settings, samples, output)
    assert Broken.scored == 2 * count  # the strict one's only
    assert [path.name for path in tmp_path.iterdir()] == ["scores.parquet"]
    expected = scored(settings, samples, tmp_path / "whole.parquet")
    pd.testing.assert_frame_equal(table, expected)


@pytest.mark.usefixtures("broken")
def test_kept_scores_are_of_the_same_samples(
    settings: Settings, spoilt: Path, tmp_path: Path, tiny_folder: Path
) -> None:
    index = pd.read_parquet(spoilt / "index.parquet")
    count = len(index)
    write_table(index, spoilt / "index.parquet")  # it does not say by which settings
    refusal(settings, spoilt, tmp_path)
    refusal(settings, spoilt, tmp_path)
    assert Broken.scored == count
    other = tiny_settings(tiny_folder, evaluation={"steps": 2})
    refusal(other, spoilt, tmp_path)
    assert Broken.scored == 2 * count
    os.utime(spoilt / "index.parquet", ns=(1, 1))  # sampled again
    refusal(settings, spoilt, tmp_path)
    assert Broken.scored == 3 * count


def test_all_that_fails_is_said_at_once(
    settings: Settings, samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_self: Any, samples: Samples) -> Tensor:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(scenes_oracle.ScenesOracle, "__call__", full)
    lines = refusal(settings, samples, tmp_path).splitlines()
    assert len(lines) == 2
    for line, name in zip(lines, ("oracle", "oracle_strict"), strict=True):
        assert line.startswith(f"reward '{name}': the GPU's memory is full: lower its batch_size")


def test_one_reason_of_several_rewards_is_said_once(
    settings: Settings, samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: Any) -> None:
        raise UserError("reward.safetensors: no such file")

    monkeypatch.setattr("bpgo.steps.loading.load_rewards", missing)
    assert refusal(settings, samples, tmp_path) == "reward.safetensors: no such file"


def test_images_are_decoded_once_or_as_often_as_needed(
    samples: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = pd.read_parquet(samples / "index.parquet").path.tolist()
    opened: list[Path] = []
    real = Image.open
    monkeypatch.setattr(Image, "open", lambda path, **key: (opened.append(path), real(path))[1])
    images = stored_samples.StoredSamples(samples, paths)
    assert torch.equal(images.read(slice(0, 2)), images.read(slice(0, 2)))
    assert len(opened) == 2
    monkeypatch.setattr(stored_samples, "REMEMBERED", 100)
    images = stored_samples.StoredSamples(samples, paths)
    assert torch.equal(images.read(slice(0, 2)), images.read(slice(0, 2)))
    assert len(opened) == 6
