"""VideoCLIP-XL (Wang et al., arXiv 2410.00741; alibaba-pai/VideoCLIP-XL): do clip and text fit?

The paper's training reward. A ViT-L-14 reads all patches of eight frames at once (ViCLIP's video
encoder); the text encoder is Long-CLIP's, with 248 positions of which the first 20 are CLIP's own.
The reward is the cosine of clip and text, times `scale`. The authors' demo takes 100 (about 20 to
30), and so does TeleBoost, which then standardizes within the batch. The paper of BPGO reports 2.07
to 2.70 and does not say how; ten times the cosine has that size, so `scale: 10` is our reading.

Frames: every (F // 8)-th from the first on, eight of them, squashed to 224 x 224 pixels; shorter
clips repeat the nearest frames (the published code fails on them).

Sources: the demo and the model's code in the published repository, as mirrored in
github.com/Saifgharbii/VideoCLIP-XL; TeleBoost's VideoclipWorker, which flips the channels of frames
as the demo does for OpenCV's. Here frames are RGB throughout, as the demo feeds them to the model.

B clips, F = 8 frames, L = 248 tokens, D numbers in an embedding.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bpgo.config.fields import Positive
from bpgo.errors import UserError
from bpgo.rewards.shared.published import CosineReward, PublishedVideoSettings, Sha256
from bpgo.storage import hub

if TYPE_CHECKING:
    from torch import Tensor

    from bpgo.records import Samples

VIDEO, TEXT = "vision_model.vision_encoder.", "text_model."
LONGEST = 248  # tokens of a prompt
UNUSED = ("vision_model.temp", "text_model.logit_scale")  # temperatures of the training


class VideoClipXLSettings(PublishedVideoSettings):
    """Keys of a `videoclip_xl` reward; `path` is the file `VideoCLIP-XL.bin` or its v2."""

    kind: Literal["videoclip_xl"] = "videoclip_xl"
    sha256: Sha256 | None = None  # of the checkpoint
    scale: Positive = 10.0  # what the cosine is multiplied by; 100: the authors' demo

    def longest_prompt(self) -> int:
        """Long-CLIP's longest text."""
        return LONGEST

    def count_tokens(self, texts: list[str]) -> list[int]:
        """See `RewardSettings.count_tokens`."""
        from bpgo.rewards.shared.tokens import open_clip_tokens

        return open_clip_tokens(texts, f"reward '{self.title}'")


class VideoClipXL(CosineReward):
    """The published checkpoint in open_clip's transformers.

    Raises:
        UserError: there is no such checkpoint, or it is another model's.
    """

    Settings = VideoClipXLSettings

    def __init__(self, settings: VideoClipXLSettings, device: str = "cpu") -> None:
        super().__init__(settings, device)
        self.settings = settings
        what = f"reward '{settings.title}'"
        path = hub.file(settings.path, settings.revision, what, settings.sha256)
        from open_clip import SimpleTokenizer

        from bpgo.rewards.shared.checkpoints import load_weights, read_state_dict

        state = {k: v for k, v in read_state_dict(path, what).items() if k not in UNUSED}
        self.model = build(sizes(state, path, what))
        load_weights(self.model, our_names(state), path, what)
        self.model.float().to(device).eval().requires_grad_(False)
        self.tokenize = SimpleTokenizer(context_length=len(self.model["text"].positions))

    def embed_images(self, images: Tensor) -> Tensor:
        """Clips [B, F', 3, H, W] in [0, 1] to embeddings [B, D]."""
        from bpgo.rewards.shared.clip_frames import imagenet_pixels, squashed_levels, stepped

        tower = self.model["video"]
        frames = images[:, stepped(images.shape[1], tower.frames)]
        levels = squashed_levels(frames.flatten(0, 1), tower.size)
        embeddings: Tensor = tower(
            imagenet_pixels(levels.view(*frames.shape[:3], *levels.shape[-2:]))
        )
        return embeddings

    def embed_text(self, text: str) -> Tensor:
        """One text, cut after 248 tokens, to its embedding [1, D]."""
        embedding: Tensor = self.model["text"](self.tokenize([text]).to(self.device))
        return embedding

    def score(self, samples: Samples) -> Tensor:
        """As the call itself, for at most `batch_size` clips on the reward's device."""
        return super().score(samples) * self.settings.scale


def our_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a published checkpoint by our modules' names."""
    renamed = {
        name.replace(VIDEO, "video.").replace(TEXT, "text."): value for name, value in state.items()
    }
    changes = {
        "text.positional_embedding": "text.positions",
        "text.positional_embedding_res": "text.late_positions",
        "text.text_projection": "text.projection",
        "video.positional_embedding": "video.positions",
        "video.temporal_positional_embedding": "video.moments",
        "video.proj": "video.projection",
    }
    return {changes.get(name, name): value for name, value in renamed.items()}


def sizes(state: dict[str, Tensor], path: Path, what: str) -> dict[str, int]:
    """Both towers' sizes, read off their tensors; the release states them only in code.

    Raises:
        UserError: if a tensor is missing, so that this is another checkpoint.
    """
    try:
        width, _, _, patch, _ = state[f"{VIDEO}conv1.weight"].shape
        words, text_width = state[f"{TEXT}token_embedding.weight"].shape
        return {
            "width": width,
            "patch": patch,
            "frames": state[f"{VIDEO}temporal_positional_embedding"].shape[1],
            "cells": state[f"{VIDEO}positional_embedding"].shape[0] - 1,
            "layers": _layers(state, VIDEO),
            "embedding": state[f"{VIDEO}proj"].shape[1],
            "words": words,
            "text_width": text_width,
            "text_length": state[f"{TEXT}positional_embedding"].shape[0],
            "text_layers": _layers(state, TEXT),
        }
    except (KeyError, ValueError, IndexError) as error:
        raise UserError(f"{what}: {path} is not its checkpoint: no such tensor: {error}") from None


def _layers(state: dict[str, Tensor], tower: str) -> int:
    found = [
        re.match(rf"{re.escape(tower)}transformer\.resblocks\.(\d+)\.", name) for name in state
    ]
    return 1 + max((int(match[1]) for match in found if match), default=0)


def build(size: dict[str, int]) -> Any:
    """The two towers, `video` and `text`, on the meta device, without weights."""
    from accelerate import init_empty_weights
    from torch import nn

    from bpgo.rewards.shared.videoclip_towers import TextTower, VideoTower

    with init_empty_weights():
        return nn.ModuleDict({"video": VideoTower(size), "text": TextTower(size)})


REWARD = VideoClipXL
