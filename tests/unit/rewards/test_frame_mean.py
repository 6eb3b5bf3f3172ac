"""An image reward over frames: by hand, through a configuration, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tiny_video_rewards import clips
from torch import Tensor

from bpgo.config import resolve as config
from bpgo.config.jobs import score_digest
from bpgo.config.runs import Run
from bpgo.config.settings import Settings
from bpgo.errors import UserError
from bpgo.records import Samples
from bpgo.rewards import load_rewards
from bpgo.rewards.frame_mean import FrameMean, FrameMeanSettings, evenly_spaced
from bpgo.storage.files import repository_root

ENTRY = {"kind": "frame_mean", "title": "Frames", "reward": "oracle", "frames": 3}


def brightness(samples: Samples) -> Tensor:
    """Of images, plus the length of the text."""
    lengths = torch.tensor([float(len(text)) for text in samples.texts])
    return samples.pixels.flatten(1).mean(dim=1) + lengths


def of(frames: int = 3) -> FrameMean:
    settings = FrameMeanSettings.model_validate({**ENTRY, "frames": frames})
    return FrameMean(settings, brightness)


def test_by_hand() -> None:
    given, texts = clips(2, 9), ["a", "four"]
    expected = given[:, [0, 4, 8]].flatten(1).mean(dim=1) + torch.tensor([1.0, 4.0])
    torch.testing.assert_close(of()(Samples(given, texts)), expected)


@pytest.mark.parametrize(
    ("total", "wanted", "expected"),
    [
        (81, 4, [0, 27, 53, 80]),
        (9, 2, [0, 8]),
        (9, 1, [4]),
        (3, 4, [0, 1, 2]),
        (1, 4, [0]),
    ],
)
def test_frames(total: int, wanted: int, expected: list[int]) -> None:
    assert evenly_spaced(total, wanted) == expected


def test_what_is_refused() -> None:
    with pytest.raises(UserError, match="'Frames' scores clips, but it was given images"):
        of()(Samples(clips(2)[:, 0], ["a", "b"]))


@pytest.fixture
def library(tmp_path: Path) -> dict[str, Any]:
    """The default configuration's values, its files copied to where some can be added."""
    shutil.copytree(repository_root() / "config", tmp_path / "config")
    values = config.read_yaml(tmp_path / "config" / "config.yaml")
    values["sweeps"] = {}
    values["experiments"] = {"ambiguous": values["experiments"]["ambiguous"]}
    del values["experiments"]["ambiguous"]["primary"]
    values["experiments"]["ambiguous"].update(training_reward="mine", judges=["mine"])
    values["experiments"]["ambiguous"].update(diagnostics=[], arms=["grpo"])
    values["analysis"]["main_metric"] = "mine"
    values["model"] = "wan21_t2v_1_3b"
    values["overrides"] = {"models": {"wan21_t2v_1_3b": {"frames": 9}}}
    values["features"] = None  # the scenes' are of images
    values["evaluation"]["diversity_prompts"] = 0
    return values


def resolved(library: dict[str, Any], folder: Path, **changes: Any) -> Settings:
    entry = {**ENTRY, **changes}
    (folder / "config" / "rewards" / "mine.yaml").write_text(yaml.safe_dump(entry))
    return config.resolve(library, folder / "config")


def test_a_configuration_brings_the_inner_reward(library: dict[str, Any], tmp_path: Path) -> None:
    found = resolved(library, tmp_path)
    assert set(found.rewards) == {"mine", "oracle"}
    assert found.models_of(["mine"]) == ["mine"]  # the inner one has no scores of its own
    loaded: Any = load_rewards(found.rewards, ["mine"])["mine"]
    images = Samples(torch.rand(2, 3, 24, 24), ["a red circle"] * 2)
    assert loaded.inner(images).shape == (2,)
    config.save_resolved(found, tmp_path / "resolved.yaml")
    assert config.load_resolved(tmp_path / "resolved.yaml") == found


def test_digests_cover_the_inner_reward(library: dict[str, Any], tmp_path: Path) -> None:
    found = resolved(library, tmp_path)
    strict = found.rewards["oracle"].model_copy(update={"output": "strict"})
    other = found.model_copy(update={"rewards": {**found.rewards, "oracle": strict}})
    run = Run("ambiguous", "grpo", 1)
    assert other.run_digest(run) != found.run_digest(run)
    assert score_digest(other, run, "main") != score_digest(found, run, "main")


def test_configurations_that_are_refused(library: dict[str, Any], tmp_path: Path) -> None:
    for changes, words in (
        ({"reward": "orcale"}, "mine.yaml: reward: 'orcale' is unknown"),
        ({"reward": "hpsv21_clip"}, "'hpsv21_clip' is a sum; name one that scores images"),
        ({"reward": "videoclip_xl"}, "'videoclip_xl' is a reward of videos"),
        ({"reward": "hpsv2_official"}, "write environment: hpsv2 here too"),
        ({"frames": 0}, "mine.yaml: frames"),
    ):
        with pytest.raises(UserError) as caught:
            resolved(library, tmp_path, **changes)
        assert words in str(caught.value)


def test_clips_of_another_rate(library: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "config" / "rewards"
    entry = config.read_yaml(folder / "qwen3_vl_embedding.yaml")
    (folder / "mine.yaml").write_text(yaml.safe_dump(entry))
    assert config.resolve(library, tmp_path / "config").model.frames_per_second == entry["clip_fps"]
    (folder / "mine.yaml").write_text(yaml.safe_dump({**entry, "clip_fps": 24}))
    with pytest.raises(UserError, match="takes clips of 24 frames a second"):
        config.resolve(library, tmp_path / "config")
