"""Qwen3-VL-Embedding (Qwen/Qwen3-VL-Embedding-2B): how close clip and prompt are.

The cosine of two embeddings, each the last token's last hidden state of one model that reads the
one or the other, in the chat format with an instruction (the model card's `Qwen3VLEmbedder`). A
held-out judge of the paper, which reports 0.67 to 0.69.

Frames: 1 a second (of `clip_fps`), at least 4 and at most 64, an even number rounded down, evenly
spaced with the first and the last; 131072 to 786432 pixels each, with the second that they show
written before each pair. That is what the published code does with a video file. A clip of two or
three frames gives two; a single frame is taken twice, where the published code fails.

Each pair of frames has marks around it, and the clip has none, as transformers 4.57 makes it, with
which the model was published; from 5.10 on its processor adds a pair around the whole clip. Both
instructions are the published default; the paper names none.

B clips, L tokens, D numbers in an embedding.
"""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING, Any, Literal

from bpgo.config.fields import Count, Positive
from bpgo.rewards.shared import qwen_vl
from bpgo.rewards.shared.published import CosineReward
from bpgo.storage import hub

if TYPE_CHECKING:
    from torch import Tensor

LEAST_PIXELS, MOST_PIXELS = 128 * 32 * 32, 768 * 32 * 32
LONGEST = 8192  # tokens
DEFAULT = "Represent the user's input."
CHAT = (
    "<|im_start|>system\n{instruction}<|im_end|>\n<|im_start|>user\n{content}<|im_end|>\n"
    "<|im_start|>assistant\n"
)


class Qwen3VLEmbeddingSettings(qwen_vl.PixelSettings):
    """Keys of a `qwen3_vl_embedding` reward; `path` is the model's folder."""

    kind: Literal["qwen3_vl_embedding"] = "qwen3_vl_embedding"
    fps: Positive = 1.0  # frames a second that it sees
    most_frames: Count = 64  # of a clip
    text_instruction: str = DEFAULT  # that precedes a prompt
    clip_instruction: str = DEFAULT  # that precedes a clip


class Qwen3VLEmbedding(CosineReward):
    """The published model in transformers.

    Raises:
        UserError: there is no such checkpoint, or it is another model's.
    """

    Settings = Qwen3VLEmbeddingSettings

    def __init__(self, settings: Qwen3VLEmbeddingSettings, device: str = "cpu") -> None:
        super().__init__(settings, device)
        self.settings = settings
        what = f"reward '{settings.title}'"
        patterns = (*qwen_vl.FILES, "*.safetensors*")
        folder = hub.folder(settings.path, settings.revision, what, patterns)
        values = qwen_vl.read_config(folder, "qwen3_vl", what)
        self.tokenizer = qwen_vl.read_tokenizer(folder, what)
        import torch
        from transformers import Qwen3VLConfig

        state = qwen_vl.model_names(qwen_vl.read_shards(folder, what))
        model = qwen_vl.build("Qwen3VLModel", Qwen3VLConfig.from_dict(values))
        place = (device, getattr(torch, settings.dtype))
        self.model = qwen_vl.finish(model, state, folder, what, place)

    def autocast(self) -> Any:
        """Nothing: the weights have the dtype already."""
        from contextlib import nullcontext

        return nullcontext()

    def embed_images(self, images: Tensor) -> Tensor:
        """Clips [B, F, 3, H, W] in [0, 1] to embeddings [B, D] of any length."""
        from bpgo.rewards.shared.clip_frames import MERGED, PatchGrid, by_rate, normalised

        wanted = self.settings
        chosen = by_rate(
            images.shape[1], wanted.clip_fps, wanted.fps, wanted.most_frames, floor=True
        )
        grid = PatchGrid(16, wanted.least_pixels or LEAST_PIXELS, wanted.most_pixels or MOST_PIXELS)
        half = (0.5, 0.5, 0.5)
        patches, shape = grid.patches(normalised(grid.levels(images[:, chosen]), half, half))
        tokens = int(shape[0, 1:].prod()) // MERGED**2  # of a pair of frames
        content = clip_content([k / wanted.clip_fps for k in chosen], tokens)
        ids = self._ids(chat(content, wanted.clip_instruction)).expand(len(images), -1)
        return self._last(ids, pixel_values_videos=patches, video_grid_thw=shape)

    def embed_text(self, text: str) -> Tensor:
        """One text, cut after 8192 tokens, to its embedding [1, D] of any length."""
        return self._last(self._ids(chat(text or "NULL", self.settings.text_instruction)))

    def _ids(self, text: str) -> Tensor:
        found = self.tokenizer([text], truncation=True, max_length=LONGEST, return_tensors="pt")
        ids: Tensor = found.input_ids.to(self.device)
        return ids

    def _last(self, ids: Tensor, **clips: Tensor) -> Tensor:
        import torch

        pad = self.tokenizer.convert_tokens_to_ids(qwen_vl.PAD)
        hidden: Tensor = self.model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            mm_token_type_ids=(ids == pad).int() * qwen_vl.VIDEO,
            use_cache=False,
            **clips,
        ).last_hidden_state
        return hidden[:, -1]


def chat(content: str, instruction: str) -> str:
    """What the model reads: the instruction as the system's words, the content as the user's."""
    instruction = instruction.strip()
    if instruction and not unicodedata.category(instruction[-1]).startswith("P"):
        instruction += "."
    return CHAT.replace("{instruction}", instruction or DEFAULT).replace("{content}", content)


def clip_content(seconds: list[float], tokens: int) -> str:
    """A clip of frames at `seconds` as text: each pair's mean second, then its `tokens` tokens."""
    pairs = zip(seconds[::2], seconds[1::2], strict=True)
    frames = qwen_vl.START + qwen_vl.PAD * tokens + qwen_vl.END
    return "".join(f"<{(first + last) / 2:.1f} seconds>{frames}" for first, last in pairs)


REWARD = Qwen3VLEmbedding
