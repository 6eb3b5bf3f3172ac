"""CLIP from a folder in the layout of transformers, for the rewards that embed with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bpgo.errors import UserError, reading
from bpgo.rewards.shared.tokens import CLIP_TOKENS
from bpgo.storage import hub
from bpgo.storage.files import read_about

if TYPE_CHECKING:
    from torch import Tensor

TOKENIZER_FILES = (("tokenizer.json",), ("vocab.json", "merges.txt"))  # the one or the other


class ClipModel:
    """A frozen CLIPModel on a device, and its tokenizer if it has to read texts.

    Args:
        path: a folder or hub repository with config.json and safetensors.
        revision: of the hub repository.
        tokenizer: (path, revision) of a folder or hub repository with a tokenizer; None if no text
            is read.
        device: where the model is put.
        what: how messages name it, such as `reward 'PickScore'`.

    Raises:
        UserError: a folder is missing, or does not hold a whole CLIP and no more.
    """

    def __init__(
        self,
        path: str,
        revision: str | None,
        tokenizer: tuple[str, str | None] | None,
        device: str,
        what: str,
    ) -> None:
        folder = hub.folder(path, revision, what, ("config.json", "*.safetensors*"))
        self.device = device
        self.model = _load_model(folder, what).to(device).eval().requires_grad_(False)
        self.image_size = int(self.model.config.vision_config.image_size)
        self.tokenizer: Any = None
        if tokenizer is not None:
            words = hub.folder(*tokenizer, what, ("*.json", "*.txt"))
            self.tokenizer = load_tokenizer(words, what)

    def embed_images(self, pixels: Tensor) -> Tensor:
        """Normalised pixels [B, 3, size, size] to embeddings [B, D] of any length."""
        embeddings: Tensor = self.model.get_image_features(pixel_values=pixels).pooler_output
        return embeddings

    def embed_text(self, text: str) -> Tensor:
        """One text, cut after 77 tokens, to its embedding [1, D] of any length."""
        tokens = self.tokenizer(
            [text], truncation=True, max_length=CLIP_TOKENS, return_tensors="pt"
        )
        found = self.model.get_text_features(
            input_ids=tokens.input_ids.to(self.device),
            attention_mask=tokens.attention_mask.to(self.device),
        )
        embedding: Tensor = found.pooler_output
        return embedding


def _load_model(folder: Path, what: str) -> Any:
    kind = _model_type(folder)
    if kind != "clip":
        raise UserError(f"{what}: {folder} is not a CLIP: its config.json says model_type {kind!r}")
    import torch
    from transformers import CLIPModel

    with reading(f"{what}: {folder} cannot be read as a CLIP"), _quiet():
        model, loading = CLIPModel.from_pretrained(
            folder,
            dtype=torch.float32,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # to be refused below, by name
        )
    wrong = [f"{name} is missing" for name in sorted(loading["missing_keys"])]
    wrong += [
        f"{name} is unknown"
        for name in sorted(loading["unexpected_keys"])
        if not name.endswith("position_ids")  # older files hold these constants
    ]
    wrong += [f"{entry[0]} has another shape" for entry in sorted(loading["mismatched_keys"])]
    if wrong:
        raise UserError(
            f"{what}: {folder} is not its checkpoint: {len(wrong)} tensors do not fit, such as:"
            f" {wrong[0]}"
        )
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' own bars and reports: what matters is said in one message."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)


def _model_type(folder: Path) -> str | None:
    return read_about(folder / "config.json").get("model_type")


def load_tokenizer(folder: Path, what: str) -> Any:
    """The tokenizer in a folder; `UserError` if there is none, or it cannot be read."""
    from transformers import AutoTokenizer

    # Without these files transformers makes an empty tokenizer and says nothing.
    if not any(all((folder / name).is_file() for name in names) for names in TOKENIZER_FILES):
        raise UserError(f"{what}: {folder} holds no tokenizer: no tokenizer.json")
    with reading(f"{what}: the tokenizer in {folder} cannot be read"):
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
