"""Words to token ids for every model of the embedded world: one id a word, in a fixed order."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bpgo.scenes.captions import MAX_WORDS, VOCABULARY

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_SPECIAL = ("<pad>", "<eos>", "<unk>")
PAD, EOS, UNKNOWN = range(3)
WORD_IDS = {word: index for index, word in enumerate((*_SPECIAL, *VOCABULARY))}
VOCABULARY_SIZE = len(WORD_IDS)
TOKENS = MAX_WORDS + 1
"""Length of every text in tokens: the longest caption and the end of text."""


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Build the tokenizer that a Flux pipeline folder holds; gives what encode_texts gives."""
    # Imported here: rewards need token ids only, and transformers takes seconds to import.
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(WordLevel(dict(WORD_IDS), unk_token=_SPECIAL[UNKNOWN]))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single=f"$A {_SPECIAL[EOS]}", special_tokens=[(_SPECIAL[EOS], EOS)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=_SPECIAL[PAD],
        eos_token=_SPECIAL[EOS],
        unk_token=_SPECIAL[UNKNOWN],
        model_max_length=TOKENS,
        padding_side="right",
    )


@cache
def _ids(text: str) -> tuple[int, ...]:
    ids = [WORD_IDS.get(word, UNKNOWN) for word in text.split()][: TOKENS - 1]
    return (*ids, EOS, *[PAD] * (TOKENS - 1 - len(ids)))


def encode_texts(texts: Sequence[str]) -> Tensor:
    """Token ids [B, 12] int64: words, the end of text, padding."""
    return torch.tensor([_ids(text) for text in texts], dtype=torch.long).reshape(-1, TOKENS)
