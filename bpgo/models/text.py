"""Run a pipeline's text encoders, one after the other."""

from __future__ import annotations

import html
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bpgo.errors import UserError, reading
from bpgo.models.parts import load_model, tokenizer_of

# Tokens in one forward pass: 32 prompts of 512 tokens take 3 GB in the largest encoder (T5-XXL).
BATCH_TOKENS = 2**14

CLIP = "transformers:CLIPTextModel"
CLIP_WITH_PROJECTION = "transformers:CLIPTextModelWithProjection"
T5 = "transformers:T5EncoderModel"
UMT5 = "transformers:UMT5EncoderModel"


def cleaned(text: str) -> str:
    """A prompt as diffusers' Wan pipelines clean it (`prompt_clean`): entities and white space.

    As there, ftfy mends broken characters where it is installed. Importing the pipeline for this
    would bring in all of transformers.
    """
    if find_spec("ftfy"):
        import ftfy

        text = ftfy.fix_text(text)
    return " ".join(html.unescape(html.unescape(text)).split())


@torch.no_grad()
def encode(
    kind: str,
    folder: Path,
    part: str,
    texts: list[str],
    length: int | None,
    pick: Callable[[Any], tuple[Tensor, ...]],
    device: torch.device,
    dtype: torch.dtype,
    masked: bool = False,
    **options: Any,
) -> tuple[Tensor, ...]:
    """What `pick` takes from an encoder's output for each text, `[N, ...]`, on the host.

    Args:
        kind: the encoder's class, as `load_model` takes it.
        folder: the pipeline's.
        part: the encoder's, such as `text_encoder_2`.
        texts: N prompts.
        length: tokens to which they are padded or cut; None: as the tokenizer says.
        pick: from the encoder's output to tensors `[n, ...]`.
        device: where it runs; it is freed before this returns.
        dtype: of its weights.
        masked: the encoder does not see the padding, and what it says there becomes zero.
        options: further arguments of the encoder.

    Raises:
        UserError: if the encoder or its tokenizer cannot be loaded, or they do not fit.
    """
    from transformers import AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    place = folder / tokenizer_of(part)
    with reading(f"{place}: cannot be loaded as a tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(place, local_files_only=True)
    length = length or tokenizer.model_max_length
    size = max(1, BATCH_TOKENS // length)
    encoder = load_model(kind, folder, part, dtype).to(device)
    _check_length(tokenizer, place, encoder, length)
    batches = []
    for start in range(0, len(texts), size):
        encoded = tokenizer(
            texts[start : start + size],
            padding="max_length",
            max_length=length,
            truncation=True,
            return_tensors="pt",
        )
        _check_ids(encoded.input_ids, place, encoder)
        if masked:
            options["attention_mask"] = encoded.attention_mask.to(device)
        with reading(f"{folder / part}: cannot be used"):
            found = pick(encoder(encoded.input_ids.to(device), **options))
        if masked:
            found = tuple(_without_padding(found, options["attention_mask"]))
        batches.append([tensor.to(dtype).cpu() for tensor in found])
    del encoder, encoded, found  # nothing else refers to the encoder: its memory is free now
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return tuple(torch.cat(parts) for parts in zip(*batches, strict=True))


def _check_length(tokenizer: Any, place: Path, encoder: Any, length: int) -> None:
    """A tokenizer, from the folder `place`, can pad to a length that the encoder reads."""
    if tokenizer.pad_token is None:
        raise UserError(f"{place}: has no padding token (tokenizer_config.json: pad_token)")
    positions = getattr(encoder.config, "max_position_embeddings", length)
    if length > positions:
        raise UserError(
            f"{place}: model_max_length: {length} is more than the {positions} positions that its"
            " encoder has"
        )


def _check_ids(ids: Tensor, place: Path, encoder: Any) -> None:
    """The encoder knows all tokens; on a GPU an unknown one ends the process without a word."""
    if (largest := int(ids.max())) >= encoder.config.vocab_size:
        raise UserError(
            f"{place}: numbers a token {largest}; its encoder knows {encoder.config.vocab_size}"
        )


def _without_padding(found: tuple[Tensor, ...], mask: Tensor) -> list[Tensor]:
    """Zeros for the tokens `[n, L, ...]` that `mask` `[n, L]` says are padding."""
    return [value.masked_fill(mask[..., None] == 0, 0) for value in found]
