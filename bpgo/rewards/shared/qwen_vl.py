"""What the Qwen-VL reward models share: weights in one dtype, and clips as tokens.

B clips, L tokens.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bpgo.config.fields import Count, Positive
from bpgo.errors import UserError
from bpgo.rewards.shared.clip_model import load_tokenizer
from bpgo.rewards.shared.published import PublishedVideoSettings
from bpgo.storage.files import read_about

if TYPE_CHECKING:
    from torch import Tensor

START, PAD, END = "<|vision_start|>", "<|video_pad|>", "<|vision_end|>"
FILES = ("config.json", "*token*", "vocab.json", "merges.txt")  # all but the weights
VIDEO = 2  # transformers' type of a video's tokens; 0 is text


class QwenVideoSettings(PublishedVideoSettings):
    """Keys of every reward on a Qwen-VL. Unlike in others, the weights have the `dtype` too."""

    clip_fps: Positive = 16.0  # frames a second of the clips that are scored; 16: Wan's


class PixelSettings(QwenVideoSettings):
    """How large frames become, in pixels; None: as published."""

    least_pixels: Count | None = None  # smaller frames are enlarged; None: as published
    most_pixels: Count | None = None  # larger ones are shrunk; None: as published


def read_config(folder: Path, kind: str, what: str) -> dict[str, Any]:
    """The `config.json` of a folder that holds a model of the type `kind`.

    Raises:
        UserError: if there is none, or it is another model's.
    """
    values = read_about(folder / "config.json")
    found = values.get("model_type")
    if found != kind:
        raise UserError(
            f"{what}: {folder} is not its folder: its config.json says model_type {found!r},"
            f" {kind!r} is expected"
        )
    return values


def read_tokenizer(folder: Path, what: str, more: tuple[str, ...] = ()) -> Any:
    """The tokenizer in `folder`, with the special tokens `more` after its own.

    Raises:
        UserError: if there is none, or it is not a Qwen-VL's.
    """
    tokenizer = load_tokenizer(folder, what)
    known = tokenizer.get_vocab()
    missing = [token for token in (START, PAD, END) if token not in known]
    if missing:
        raise UserError(f"{what}: the tokenizer in {folder} has no token {missing[0]}")
    if more:
        tokenizer.add_tokens(list(more), special_tokens=True)
    tokenizer.padding_side = "right"
    return tokenizer


def read_shards(folder: Path, what: str) -> dict[str, Tensor]:
    """All tensors of the safetensors files in a folder; `UserError` if there are none."""
    from bpgo.rewards.shared.checkpoints import read_state_dict

    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise UserError(f"{what}: there is no .safetensors file in {folder}")
    return {name: value for file in files for name, value in read_state_dict(file, what).items()}


def model_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors by the names of transformers' `Qwen2VLModel` and `Qwen3VLModel`.

    Before transformers 4.52 files said `visual.` and `model.layers.`, later ones `model.visual.`
    and `model.language_model.layers.`. The head that predicts words takes no part.
    """
    found = {}
    for name, value in state.items():
        if not name.startswith("lm_head."):
            inner = re.sub(r"^model\.(?!visual\.|language_model\.)", "language_model.", name)
            found[inner.removeprefix("model.")] = value
    return found


def build(kind: str, config: Any) -> Any:
    """A model of transformers on the meta device, such as `Qwen2VLModel`."""
    import transformers
    from accelerate import init_empty_weights

    with init_empty_weights():
        return getattr(transformers, kind)(config)


def finish(model: Any, state: dict[str, Tensor], path: Path, what: str, place: Any) -> Any:
    """Weights into a model, which then is frozen at `place` = (device, dtype).

    Raises:
        UserError: if they do not fit.
    """
    from bpgo.rewards.shared.checkpoints import load_weights

    device, dtype = place
    load_weights(model, {name: value.to(dtype) for name, value in state.items()}, path, what)
    return model.to(device).eval().requires_grad_(False)
