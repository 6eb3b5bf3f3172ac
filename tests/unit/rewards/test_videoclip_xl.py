"""VideoCLIP-XL: its parts are open_clip's, its frames count in order, other files are refused.

Where one frame and one set of positions are used, the published towers are CLIP's own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_video_rewards import build_tiny_videoclip_xl, clips, video_reward_of
from torch import Tensor

from bpgo.errors import UserError
from bpgo.records import Samples
from bpgo.rewards.shared.checkpoints import read_state_dict
from bpgo.rewards.shared.clip_frames import imagenet_pixels, squashed_levels

TEXTS = ["a red circle moves left", "two things", "", "a blue square " * 90]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("videoclip")
    build_tiny_videoclip_xl(root / "videoclip_xl")
    return root


@pytest.fixture(scope="module")
def reward(root: Path) -> Any:
    return video_reward_of("videoclip_xl", root)


@pytest.fixture(scope="module")
def state(root: Path) -> dict[str, Tensor]:
    return read_state_dict(root / "videoclip_xl" / "VideoCLIP-XL.bin", "tiny")


def tower(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def test_cosines_times_the_scale(root: Path, reward: Any) -> None:
    found = reward(Samples(clips(), TEXTS))
    seen = torch.nn.functional.normalize(reward.embed_images(clips()), dim=1)
    read = torch.cat([reward.embed_text(text) for text in TEXTS])
    cosine = (seen * torch.nn.functional.normalize(read, dim=1)).sum(dim=1)
    torch.testing.assert_close(found, 10 * cosine)
    demo = video_reward_of("videoclip_xl", root, scale=100)(Samples(clips(), TEXTS))
    torch.testing.assert_close(demo, 10 * found)


def test_a_still_is_read_as_clip_reads_it(reward: Any, state: dict[str, Tensor]) -> None:
    """One frame without a moment's position: open_clip's vision transformer."""
    from open_clip.transformer import QuickGELU, VisionTransformer

    plain = VisionTransformer(28, 14, 128, 2, 2, 4.0, output_dim=32, act_layer=QuickGELU)
    weights = tower(state, "vision_model.vision_encoder.")
    del weights["temporal_positional_embedding"]
    weights["conv1.weight"] = weights["conv1.weight"].squeeze(2)
    plain.load_state_dict(weights)
    pixels = imagenet_pixels(squashed_levels(clips(3, 1).squeeze(1), 28))
    video = reward.model["video"]
    moments = video.moments.data
    video.moments.data = torch.zeros(1, 1, 128)
    found = video(pixels[:, None])
    video.moments.data = moments
    torch.testing.assert_close(found, plain(pixels), rtol=1e-4, atol=1e-5)


def test_a_clip_is_read_as_published(reward: Any, state: dict[str, Tensor]) -> None:
    """Written out: patches of all frames with place and moment, and one class token."""
    weights = tower(state, "vision_model.vision_encoder.")
    pixels = imagenet_pixels(squashed_levels(clips(1, 8)[0], 28))
    tokens = [weights["class_embedding"] + weights["positional_embedding"][0]]
    for frame, moment in zip(pixels, weights["temporal_positional_embedding"][0], strict=True):
        for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
            cell = frame[:, 14 * row : 14 * row + 14, 14 * column : 14 * column + 14]
            value = torch.einsum("cyx,wcyx->w", cell, weights["conv1.weight"][:, :, 0])
            tokens.append(value + weights["positional_embedding"][1 + 2 * row + column] + moment)
    video = reward.model["video"]
    read = video.transformer(video.ln_pre(torch.stack(tokens))[None])
    expected = video.ln_post(read[:, 0]) @ weights["proj"]
    torch.testing.assert_close(video(pixels[None]), expected, rtol=1e-4, atol=1e-4)


def test_texts_are_read_as_clip_reads_them(state: dict[str, Tensor], reward: Any) -> None:
    """With the same positions in both tables: open_clip's text transformer of 248 tokens."""
    from open_clip.transformer import QuickGELU, TextTransformer

    plain = TextTransformer(248, 49408, 64, 1, 2, output_dim=32, act_layer=QuickGELU)
    weights = tower(state, "text_model.")
    late = weights.pop("positional_embedding_res")
    del weights["logit_scale"]
    weights["positional_embedding"] = torch.cat([weights["positional_embedding"][:20], late[20:]])
    plain.load_state_dict(weights)
    for text in TEXTS:
        expected = plain(reward.tokenize([text]))
        torch.testing.assert_close(reward.embed_text(text), expected, rtol=1e-4, atol=1e-5)


def test_long_texts_count_beyond_77_tokens(reward: Any) -> None:
    words = "a blue square " * 40
    assert not torch.equal(reward.embed_text(words + "left"), reward.embed_text(words + "right"))
    assert reward.tokenize(["a blue square " * 90])[0, -1] == 49407


def test_frames_and_their_order_count(reward: Any) -> None:
    given, texts = clips(2, 16), TEXTS[:2]
    changed = given.clone()
    changed[:, 1::2] = 0.5  # of 16 frames every second one is seen
    assert torch.equal(reward(Samples(changed, texts)), reward(Samples(given, texts)))
    assert not torch.allclose(reward(Samples(given.flip(1), texts)), reward(Samples(given, texts)))


def test_short_clips_repeat_frames(reward: Any) -> None:
    given = clips(2, 4)
    repeated = given.repeat_interleave(2, dim=1)
    assert torch.equal(reward(Samples(given, TEXTS[:2])), reward(Samples(repeated, TEXTS[:2])))
    still = clips(2, 1)
    assert torch.equal(
        reward(Samples(still, TEXTS[:2])), reward(Samples(still.expand(2, 8, 3, 24, 40), TEXTS[:2]))
    )


def test_the_published_sizes() -> None:
    """ViT-L-14 and Long-CLIP's text encoder, without their weights: 427.9 million numbers."""
    from bpgo.rewards.videoclip_xl import build

    size = {"width": 1024, "patch": 14, "frames": 8, "cells": 256, "layers": 24}
    text = {"words": 49408, "text_width": 768, "text_length": 248, "text_layers": 12}
    model = build({**size, **text, "embedding": 768})
    assert all(value.is_meta for value in model.parameters())
    assert model["video"].size == 224
    assert model["video"].transformer.resblocks[0].attn.num_heads == 16
    assert model["text"].transformer.resblocks[0].attn.num_heads == 12
    clip_l = 427_616_513  # OpenAI's ViT-L-14, with its scale
    more = 8 * 1024 + (2 * 248 - 77) * 768 - 1
    assert sum(value.numel() for value in model.parameters()) == clip_l + more


def refusal(root: Path, **changes: Any) -> str:
    with pytest.raises(UserError) as caught:
        video_reward_of("videoclip_xl", root, **changes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_other_files_are_refused(root: Path, state: dict[str, Tensor], tmp_path: Path) -> None:
    assert "there is no file or folder '/nowhere.bin'" in refusal(root, path="/nowhere.bin")
    assert "needs a pinned revision" in refusal(root, path="alibaba-pai/VideoCLIP-XL/x.bin")
    torch.save({"weight": torch.ones(2)}, tmp_path / "other.bin")
    assert "is not its checkpoint: no such tensor" in refusal(
        root, path=str(tmp_path / "other.bin")
    )
    torch.save({**state, "vision_model.head": torch.ones(2)}, tmp_path / "more.bin")
    assert "vision_model.head is unknown" in refusal(root, path=str(tmp_path / "more.bin"))


def test_images_are_refused(reward: Any) -> None:
    with pytest.raises(UserError, match="'VideoCLIP-XL' scores clips, but it was given images"):
        reward(Samples(clips(2, 1).squeeze(1), TEXTS[:2]))
