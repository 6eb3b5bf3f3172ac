"""Clips of a policy: written as MP4 with a contact sheet, read back, scored."""

from __future__ import annotations

import shutil
import sys
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
from bpgo.errors import UserError
from bpgo.models.flux import FluxPolicy
from bpgo.records import Samples
from bpgo.steps import saved_samples, score, stored_samples
from bpgo.steps.prompts import write_prompts
from bpgo.steps.sample import sample_base
from bpgo.steps.saved_samples import save_samples
from bpgo.steps.stored_samples import StoredSamples, UnreadableSampleError
from bpgo.storage import clips
from bpgo.storage.clips import read_clip, write_clip

FRAMES = 5


@pytest.fixture(scope="module")
def settings(tiny_folder: Path) -> Settings:
    return tiny_settings(
        tiny_folder,
        model={"task": "t2v", "frames": FRAMES, "frames_per_second": 8},
        evaluation={"clip_quality": "lossless", "samples_per_prompt": 2, "batch_size": 3},
    )


def moving(images: Tensor) -> Tensor:
    """Clips `[B, F, 3, H, W]` of wandering images."""
    return torch.stack([images.roll(3 * k, dims=-1) for k in range(FRAMES)], dim=1)


@pytest.fixture(scope="module")
def root(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prompts, and clips of a policy whose images wander."""
    root = tmp_path_factory.mktemp("clips")
    write_prompts(settings, "evaluation", root / "evaluation.jsonl")
    decode = FluxPolicy.decode
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FluxPolicy, "TASKS", ("t2v",))
        patch.setattr(FluxPolicy, "decode", lambda self, latents: moving(decode(self, latents)))
        sample_base(settings, 1, root / "evaluation.jsonl", root / "samples")
    return root


@pytest.fixture
def samples(root: Path, tmp_path: Path) -> Path:
    """A copy of the samples, to be spoilt."""
    return Path(shutil.copytree(root / "samples", tmp_path / "samples"))


class Motion:
    """A reward of clips: how much changes from frame to frame. It notes how many came at once."""

    sizes: list[int]

    def __init__(self, settings: Any, device: str) -> None:
        Motion.sizes = []

    def __call__(self, samples: Samples) -> Tensor:
        assert samples.pixels.ndim == 5
        Motion.sizes.append(len(samples))
        return samples.pixels.diff(dim=1).abs().mean(dim=(1, 2, 3, 4))


@pytest.fixture
def motion(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bpgo.registry.load_reward_class", lambda _kind: Motion)


def scored(settings: Settings, samples: Path, output: Path) -> pd.DataFrame:
    score.score_run(settings, Run("tiny", "base", 1), samples, "main", output)
    return pd.read_parquet(output)


def test_every_sample_is_a_clip_without_loss(settings: Settings, root: Path) -> None:
    index = pd.read_parquet(root / "samples" / "index.parquet")
    assert len(index) == 8
    assert index.path[1] == f"clips/iteration_000000/{index.prompt_id[1]}_1.mp4"
    for path in index.path:
        clip = read_clip(root / "samples" / path)
        assert clip.shape == (FRAMES, 3, 24, 24)
        for k in range(FRAMES):
            np.testing.assert_array_equal(clip[k], np.roll(clip[0], 3 * k, axis=-1))


def test_a_contact_sheet_shows_each_prompt_once(root: Path) -> None:
    folder = root / "samples" / "clips" / "iteration_000000"
    with Image.open(folder / saved_samples.SHEET) as image:
        sheet = np.asarray(image)
    assert sheet.shape == (4 * (18 + 96 + 4) + 4, FRAMES * 100 + 4, 3)
    first = read_clip(folder / "evaluation-00000_0.mp4")
    for k in range(FRAMES):
        tile = sheet[18 : 18 + 96 : 4, 4 + k * 100 : 100 + k * 100 : 4]
        np.testing.assert_array_equal(tile.transpose(2, 0, 1), first[k])


@pytest.mark.usefixtures("motion")
def test_scores_are_those_of_what_the_policy_made(
    settings: Settings, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score, "HELD", 2 * FRAMES * 3 * 24 * 24 + 1)
    table = scored(settings, root / "samples", tmp_path / "scores.parquet")
    assert max(Motion.sizes) == 2, "no more clips at a time than the memory takes"
    index = pd.read_parquet(root / "samples" / "index.parquet")
    found = table[table.reward == "oracle"].score.to_numpy()
    for path, value in zip(index.path, found, strict=True):
        clip = torch.from_numpy(read_clip(root / "samples" / path).copy()).float() / 255
        assert float(clip.diff(dim=0).abs().mean()) == pytest.approx(value, abs=1e-6)


@pytest.mark.usefixtures("motion")
@pytest.mark.parametrize("fault", ["missing", "cut", "short", "small"])
def test_a_broken_clip_is_named(
    fault: str, settings: Settings, samples: Path, tmp_path: Path
) -> None:
    path = samples / pd.read_parquet(samples / "index.parquet").path[0]
    clip, content = read_clip(path), path.read_bytes()
    if fault == "missing":
        path.unlink()
    elif fault == "cut":
        path.write_bytes(content[: len(content) // 2])
    else:
        write_clip(path, clip[:3] if fault == "short" else clip[:, :, :16], quality="lossless")
    with pytest.raises(UserError) as caught:
        scored(settings, samples, tmp_path / "scores.parquet")
    assert str(caught.value).startswith(f"{path}: ")
    assert str(caught.value).endswith("; run `sample` again")
    assert not (tmp_path / "scores.parquet").exists()
    said = {"short": "3 frames of 24 x 24 pixels", "small": "5 frames of 16 x 24 pixels"}
    assert said.get(fault, "") in str(caught.value)


def test_what_is_missing_shows_before_anything_is_sampled(
    settings: Settings, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "bpgo.steps.loading.load_policy", lambda *_: pytest.fail("sampling has begun")
    )
    prompts = root / "evaluation.jsonl"
    monkeypatch.setattr("av.codecs_available", set())
    with pytest.raises(UserError, match="encoder libx264rgb"):
        sample_base(settings, 1, prompts, tmp_path / "out")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UserError, match="need the package av"):
        sample_base(settings, 1, prompts, tmp_path / "out")
    with pytest.raises(UnreadableSampleError, match="need the package av"):
        StoredSamples(root, ["clip.mp4"]).read(slice(0, 1))
    assert not (tmp_path / "out").exists()


def test_clips_of_high_quality(settings: Settings, tmp_path: Path) -> None:
    """The quality and the speed are the configuration's."""
    wanted = settings.evaluation.model_copy(update={"clip_quality": "high"})
    changed = settings.model_copy(update={"evaluation": wanted})
    parts = [torch.full((1, FRAMES, 3, 24, 24), level) for level in (0.25, 0.75)]
    names = [("a", 0), ("b", 0)]
    paths = save_samples(changed, parts, names, ["grey", "light"], tmp_path, 7)
    assert paths == ["clips/iteration_000007/a_0.mp4", "clips/iteration_000007/b_0.mp4"]
    found = stored_samples.StoredSamples(tmp_path, paths).read(slice(0, 2)).float() / 255
    assert torch.allclose(found, torch.cat(parts), atol=0.02)
    with clips._av().open(str(tmp_path / paths[0])) as file:
        assert file.streams.video[0].average_rate == 8
        assert file.streams.video[0].codec_context.pix_fmt == "yuv420p"
