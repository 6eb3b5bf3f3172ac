"""Words to token ids for every model of the embedded world: one id a word, in a fixed order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bpgo.scenes.captions import MAX_WORDS, VOCABULARY

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_SPECIAL = ("<pad>", "<eos>", "<unk>")
PAD, EOS, UNKNOWN = range(3)


class WordTokens:
    """One id a word, in a fixed order; a text is its words, the end of text, and padding.

    Attributes:
        word_ids: the id of each word, the special ones included.
        length: of every text in tokens, the longest caption and the end of text.
    """

    def __init__(self, vocabulary: Sequence[str], longest: int) -> None:
        self.word_ids = {word: index for index, word in enumerate((*_SPECIAL, *vocabulary))}
        self.length = longest + 1
        self._known: dict[str, tuple[int, ...]] = {}

    def __len__(self) -> int:
        return len(self.word_ids)

    def build_tokenizer(self) -> PreTrainedTokenizerFast:
        """Build the tokenizer that a pipeline folder holds; gives what :meth:`encode` gives."""
        # Imported here: rewards need token ids only, and transformers takes seconds to import.
        from tokenizers import Tokenizer
        from tokenizers.models import WordLevel
        from tokenizers.pre_tokenizers import Whitespace
        from tokenizers.processors import TemplateProcessing
        from transformers import PreTrainedTokenizerFast

        tokenizer = Tokenizer(WordLevel(dict(self.word_ids), unk_token=_SPECIAL[UNKNOWN]))
        tokenizer.pre_tokenizer = Whitespace()
        tokenizer.post_processor = TemplateProcessing(
            single=f"$A {_SPECIAL[EOS]}", special_tokens=[(_SPECIAL[EOS], EOS)]
        )
        return PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            pad_token=_SPECIAL[PAD],
            eos_token=_SPECIAL[EOS],
            unk_token=_SPECIAL[UNKNOWN],
            model_max_length=self.length,
            padding_side="right",
        )

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Token ids [B, length] int64 of texts."""
        ids = [self._ids(text) for text in texts]
        return torch.tensor(ids, dtype=torch.long).reshape(-1, self.length)

    def decode(self, ids: Tensor) -> list[str]:
        """Texts of token ids [B, length], as far as their end."""
        words = list(self.word_ids)
        return [" ".join(words[i] for i in row[: row.index(EOS)]) for row in ids.tolist()]

    def _ids(self, text: str) -> tuple[int, ...]:
        if text not in self._known:
            ids = [self.word_ids.get(word, UNKNOWN) for word in text.split()][: self.length - 1]
            self._known[text] = (*ids, EOS, *[PAD] * (self.length - 1 - len(ids)))
        return self._known[text]


WORDS = WordTokens(VOCABULARY, MAX_WORDS)
"""Of the image world's captions."""
WORD_IDS = WORDS.word_ids
VOCABULARY_SIZE = len(WORDS)
TOKENS = WORDS.length
build_tokenizer = WORDS.build_tokenizer
encode_texts = WORDS.encode
