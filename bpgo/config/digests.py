"""Digests of settings: what decides a result, in 16 digits."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel

from bpgo.storage.files import text_digest

# Keys that change no result, or only the last bits of it: what they are may change in mid-run.
NO_RESULT = ("title", "source", "batch_size", "gradient_checkpointing", "offload_expert")


def digest_of(*parts: Any) -> str:
    """Digest of settings, without the keys that change no result."""
    return text_digest(json.dumps(_plain(parts), sort_keys=True))


def _plain(value: Any) -> Any:
    """Plain JSON without `NO_RESULT`."""
    if isinstance(value, BaseModel):
        return _plain(value.model_dump(mode="json"))
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items() if k not in NO_RESULT}
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value
