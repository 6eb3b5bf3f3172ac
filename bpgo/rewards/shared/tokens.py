"""How many tokens prompts have, to say where a reward reads the beginning of a prompt alone.

Tokenizers are those that the rewards use, from this machine; nothing is fetched.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bpgo.config.settings import Settings
from bpgo.errors import UserError, reading
from bpgo.storage import hub

CLIP_TOKENS = 77  # CLIP's longest text


def cut_texts(settings: Settings, name: str, texts: list[str]) -> list[bool]:
    """Whether the reward `name`, a part or an inner reward of it reads each text only in part.

    Raises:
        UserError: its tokenizer is not on this machine, or cannot be read.
    """
    cut: set[str] = set()
    different = list(dict.fromkeys(texts))
    for reward in settings.settings_of([name]).values():
        most = reward.longest_prompt()
        if most is not None and texts:
            counts = reward.count_tokens(different)
            cut |= {text for text, count in zip(different, counts, strict=True) if count > most}
    return [text in cut for text in texts]


def transformers_tokens(
    path: str, revision: str | None, what: str, texts: list[str], kind: str = "AutoTokenizer"
) -> list[int]:
    """Tokens of each text, begin and end included, by a tokenizer in a folder or on the hub."""
    folder = _present(path, revision, what)
    if kind == "AutoTokenizer":
        from bpgo.rewards.shared.clip_model import load_tokenizer

        tokenizer = load_tokenizer(folder, what)
    else:
        import transformers

        if not (folder / "vocab.txt").is_file():
            raise UserError(f"{what}: there is no vocab.txt in {folder}")
        with reading(f"{what}: the tokenizer in {folder} cannot be read"):
            tokenizer = getattr(transformers, kind).from_pretrained(folder)
    ids: Any = tokenizer(texts, truncation=False, verbose=False).input_ids
    return [len(row) for row in ids]


def open_clip_tokens(texts: list[str], what: str) -> list[int]:
    """The same by open_clip's tokenizer, which comes with its package."""
    try:
        from open_clip import SimpleTokenizer
    except ImportError as error:
        raise UserError(f"{what}: its tokenizer needs the package open_clip: {error}") from None
    tokenizer = SimpleTokenizer()
    return [len(tokenizer.encode(text)) + 2 for text in texts]


def _present(path: str, revision: str | None, what: str) -> Path:
    found = hub.present(path, revision)
    if found is None or not found.is_dir():
        raise UserError(f"{what}: its tokenizer, {path}, is not on this machine")
    return found
