"""Every training stage of the video world runs for a few steps; equal seeds, equal weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bpgo.errors import UserError
from bpgo.scenes.pretrain import join, pretrain_all
from bpgo.scenes.video.captions import TASKS, Task, sample_captions
from bpgo.scenes.video.policy import first_frames, load_policy, sample_clips
from bpgo.scenes.video.reward_training import score_clips
from bpgo.scenes.weights import clip_policy_folder, load_clip_reward
from bpgo.scenes.worlds import POOLS
from bpgo.storage.digests import verify, write_digests


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pretrain") / "weights"
    pretrain_all(folder, steps=2, world="video")
    return folder


@pytest.mark.parametrize("task", TASKS)
def test_policies_and_rewards_from_nothing(pretrained: Path, task: Task) -> None:
    verify(pretrained)
    assert {path.name for path in pretrained.iterdir()} == {"video", "digests.json"}
    captions = sample_captions(3, 0, "held_out", task)
    texts = [caption.text for caption in captions]
    frames = first_frames(captions, 0) if task == "i2v" else None
    policy = load_policy(clip_policy_folder(task, pretrained), task)
    clips = sample_clips(policy, texts, torch.Generator().manual_seed(0), frames)
    assert clips.shape == (3, 5, 3, 32, 32)
    assert clips.isfinite().all()
    scores = torch.stack(
        [score_clips(load_clip_reward(pool, weights=pretrained), clips, texts) for pool in POOLS]
    )
    assert scores.isfinite().all()
    assert not torch.equal(scores[0], scores[1])


def test_equal_seeds_equal_weights(pretrained: Path, tmp_path: Path) -> None:
    pretrain_all(tmp_path / "again", steps=2, world="video")
    first, second = (folder / "digests.json" for folder in (pretrained, tmp_path / "again"))
    assert first.read_text() == second.read_text()


def test_parts_made_side_by_side_are_joined(pretrained: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    (images / "policy").mkdir(parents=True)
    (images / "policy" / "model_index.json").write_text("{}")
    write_digests(images)
    join([images, pretrained], tmp_path / "both")
    verify(tmp_path / "both")
    assert (tmp_path / "both" / "policy" / "model_index.json").read_text() == "{}"
    load_policy(clip_policy_folder("t2v", tmp_path / "both"), "t2v")


def test_a_part_that_is_not_whole_is_refused(pretrained: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder of weights"):
        join([pretrained, tmp_path / "missing"], tmp_path / "both")
    spoilt = tmp_path / "spoilt"
    spoilt.mkdir()
    (spoilt / "weights.safetensors").write_bytes(b"whole")
    write_digests(spoilt)
    (spoilt / "weights.safetensors").write_bytes(b"other")
    with pytest.raises(UserError, match="corrupted"):
        join([spoilt, pretrained], tmp_path / "both")
    assert not (tmp_path / "both").exists()
