"""Digests of settings: what decides a result, in 16 digits."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable
from functools import wraps
from typing import Any

from pydantic import BaseModel

from bpgo.storage.files import text_digest

# Keys that change no result, or only the last bits of it: what they are may change in mid-run.
NO_RESULT = ("title", "source", "batch_size", "gradient_checkpointing", "offload_expert")
# A model's keys that decide how policies are judged, and not which policy training makes.
JUDGING = ("evaluation_schedule", "evaluation_flow_shift")
# Keys of `evaluation` that decide no sample that is scored.
MEASURED = ("divergence_prompts", "diversity_prompts", "diversity_samples")
REMEMBERED = 1000  # records, of which `_PLAIN` holds the plain form
# With the record itself, so that no other one gets its place in memory.
_PLAIN: dict[tuple[int, tuple[str, ...]], tuple[BaseModel, Any]] = {}


def once_a_run(digest: Callable[[Any, Any], str]) -> Callable[[Any, Any], str]:
    """`digest` of settings, which are frozen, made once for each run: its later jobs' hold it.

    Of the settings that were asked for last: a workflow asks for the digests of thousands of jobs.
    """
    last: Any = None
    made: dict[Hashable, str] = {}

    @wraps(digest)
    def remembered(settings: Any, run: Hashable) -> str:
        nonlocal last, made
        if settings is not last:
            last, made = settings, {}
        if run not in made:
            made[run] = digest(settings, run)
        return made[run]

    return remembered


def digest_of(*parts: Any, without: tuple[str, ...] = ()) -> str:
    """Digest of settings, without the keys that change no result, nor those of `without`."""
    return text_digest(json.dumps(_plain(parts, NO_RESULT + without), sort_keys=True))


def _plain(value: Any, without: tuple[str, ...]) -> Any:
    """Plain JSON without some keys.

    Records are frozen and stand in the digests of many jobs: each is made plain once.
    """
    if isinstance(value, BaseModel):
        key = (id(value), without)
        if key not in _PLAIN:
            if len(_PLAIN) >= REMEMBERED:
                _PLAIN.clear()
            _PLAIN[key] = value, _plain(value.model_dump(mode="json"), without)
        return _PLAIN[key][1]
    if isinstance(value, dict):
        return {k: _plain(v, without) for k, v in value.items() if k not in without}
    return [_plain(v, without) for v in value] if isinstance(value, (list, tuple)) else value
