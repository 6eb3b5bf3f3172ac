"""Qwen3-VL-Embedding: the cosines of the published steps in transformers, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_video_rewards import build_tiny_qwen3_vl_embedding, clips, video_reward_of
from torch import Tensor

from bpgo.errors import UserError
from bpgo.records import Samples
from bpgo.rewards.qwen3_vl_embedding import CHAT, DEFAULT, chat, clip_content
from bpgo.rewards.shared.clip_frames import PatchGrid

TEXTS = ["a red circle moves left", "two things", "", "a blue square"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("embedding")
    build_tiny_qwen3_vl_embedding(root / "qwen3_vl_embedding")
    return root


def reward_of(root: Path, **changes: Any) -> Any:
    return video_reward_of("qwen3_vl_embedding", root, **changes)


def published(folder: Path, clip: Tensor, text: str) -> tuple[Tensor, Tensor]:
    """Embeddings [D] of clip and text by transformers' processor and model, one at a time.

    The clip's marks are those that its processor makes from the bare token: up to version 5.9 it
    took the pair around that token away by itself.
    """
    from transformers import (
        AutoTokenizer,
        Qwen2VLImageProcessor,
        Qwen3VLModel,
        Qwen3VLProcessor,
        Qwen3VLVideoProcessor,
    )

    processor = Qwen3VLProcessor(
        Qwen2VLImageProcessor(patch_size=16),
        AutoTokenizer.from_pretrained(folder),
        Qwen3VLVideoProcessor(cap_pixels_per_frame=True),
    )
    model = Qwen3VLModel.from_pretrained(folder, dtype=torch.float32)
    frames = [0, 3, 5, 8]
    template = CHAT.replace("{instruction}", DEFAULT)
    read = processor(
        text=[template.replace("{content}", "<|video_pad|>")],
        videos=[PatchGrid(16, 32 * 32, 64 * 64).levels(clip[None, frames])[0]],
        video_metadata=[{"fps": 16, "frames_indices": frames, "total_num_frames": 9}],
        do_sample_frames=False,
        do_resize=False,
        return_tensors="pt",
    )
    words = processor(text=[template.replace("{content}", text)], return_tensors="pt")
    with torch.no_grad():
        seen, said = (model(**inputs).last_hidden_state[0, -1] for inputs in (read, words))
    return seen, said


@pytest.mark.parametrize("index", [0, 1, 3])
def test_cosines_are_the_published_ones(root: Path, index: int) -> None:
    reward = reward_of(root)
    clip, text = clips()[index], TEXTS[index]
    seen, read = published(root / "qwen3_vl_embedding", clip, text)
    torch.testing.assert_close(reward.embed_images(clip[None])[0], seen, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(reward.embed_text(text)[0], read, rtol=1e-4, atol=1e-4)
    found = reward(Samples(clip[None], [text]))
    expected = torch.nn.functional.cosine_similarity(seen, read, dim=0)
    torch.testing.assert_close(found[0], expected, rtol=1e-4, atol=1e-5)


def test_clips_and_texts_count(root: Path) -> None:
    found = torch.stack([reward_of(root)(Samples(clips(), [text] * 4)) for text in TEXTS])
    assert found.std(dim=0).min() > 0.01
    assert found.std(dim=1).min() > 0.001


def test_what_the_model_reads() -> None:
    """The second in the middle of each pair stands before it."""
    pair = "<|vision_start|><|video_pad|><|video_pad|><|vision_end|>"
    expected = f"<0.2 seconds>{pair}<1.5 seconds>{pair}"
    assert clip_content([0.0, 0.375, 1.0, 2.0], 2) == expected
    assert chat("a", "  Find it ").startswith("<|im_start|>system\nFind it.<|im_end|>\n")
    assert chat("a", "Find it!").startswith("<|im_start|>system\nFind it!<|im_end|>\n")
    assert chat("a", "").startswith(f"<|im_start|>system\n{DEFAULT}<|im_end|>\n")
    assert chat("a {b}", DEFAULT).endswith(
        "<|im_start|>user\na {b}<|im_end|>\n<|im_start|>assistant\n"
    )


def test_instructions_and_frames_are_settings(root: Path) -> None:
    given, plain = Samples(clips(), TEXTS), reward_of(root)
    for change in (
        {"text_instruction": "Find the clip"},
        {"clip_instruction": "Find the text"},
        {"fps": 16},
        {"clip_fps": 4},
    ):
        assert not torch.allclose(reward_of(root, **change)(given), plain(given))
    still = clips()[:, :1]
    twice = still.expand(4, 2, 3, 24, 40)
    assert torch.equal(plain(Samples(still, TEXTS)), plain(Samples(twice, TEXTS)))


def test_dtypes(root: Path) -> None:
    exact = reward_of(root)(Samples(clips(), TEXTS))
    rounded = reward_of(root, dtype="bfloat16")(Samples(clips(), TEXTS))
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, exact)
    torch.testing.assert_close(rounded, exact, rtol=0, atol=0.05)


def test_other_folders_are_refused(root: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(root / "qwen3_vl_embedding", tmp_path / "copy"))

    def refusal(path: Path = folder) -> str:
        with pytest.raises(UserError) as caught:
            reward_of(root, path=str(path))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "there is no file or folder '/nowhere'" in refusal(Path("/nowhere"))
    (folder / "model.safetensors").rename(folder / "model.other")
    assert "there is no .safetensors file in" in refusal()
    (folder / "model.safetensors").write_bytes(b"half")
    assert "cannot be read as a checkpoint" in refusal()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "qwen2_vl"}))
    assert "'qwen3_vl' is expected" in refusal()


def test_images_are_refused(root: Path) -> None:
    with pytest.raises(UserError, match="scores clips, but it was given images"):
        reward_of(root)(Samples(clips(2, 1).squeeze(1), TEXTS[:2]))
