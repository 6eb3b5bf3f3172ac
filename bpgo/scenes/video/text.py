"""Words to token ids for every model of the video world."""

from __future__ import annotations

from bpgo.scenes.text import WordTokens
from bpgo.scenes.video.captions import MAX_WORDS, VOCABULARY

CLIP_WORDS = WordTokens(VOCABULARY, MAX_WORDS)
encode_texts = CLIP_WORDS.encode
