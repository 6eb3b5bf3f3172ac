"""Prompt embeddings, made once per prompt set and kept in safetensors."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from bpgo.core.interfaces import Policy, PromptEmbeddings
from bpgo.files import atomic_path, sha256, text_digest


def prompt_embeddings(policy: Policy, texts: list[str], cache: Path) -> PromptEmbeddings:
    """Embeddings `[N, ...]` of `texts`, from `cache` where an earlier job made them.

    The key is the texts, the text encoders' weights and the padded length, so a changed prompt set
    or another model never meets a stale entry; an unreadable entry is made again.
    """
    path = Path(cache) / f"{_key(policy, texts)}.safetensors"
    if path.exists():
        try:
            state = load_file(path)
            embeddings = PromptEmbeddings(state["tokens"], state["pooled"])
            return embeddings.to(policy.device, policy.dtype)
        except (SafetensorError, KeyError):
            path.unlink(missing_ok=True)  # another job may have been first
    embeddings = policy.encode_prompts(texts)
    state = {"tokens": embeddings.tokens.cpu().contiguous(), "pooled": embeddings.pooled.cpu()}
    with atomic_path(path) as temporary:
        save_file(state, temporary)
    return embeddings


def _key(policy: Policy, texts: list[str]) -> str:
    folder = Path(policy.folder)  # type: ignore[attr-defined]
    encoders = sorted(folder.glob("text_encoder*/*.safetensors"))
    digests = [sha256(file) for file in encoders]
    return text_digest(json.dumps([texts, digests, policy.settings.prompt_tokens]))
