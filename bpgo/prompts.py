"""Prompt sets: one JSON line per prompt."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from bpgo.errors import UserError
from bpgo.files import write_text
from bpgo.records import PromptBatch
from bpgo.settings import Settings

SPLITS = ("train", "evaluation")
ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")  # an id becomes part of a file's name


def write_prompts(settings: Settings, split: str, output: Path) -> None:
    """Write one split; splits share no prompt.

    Raises:
        UserError: for an unknown split or more prompts than there are.
    """
    from bpgo.scenes.captions import sample_captions

    if split not in SPLITS:
        raise UserError(f"--split: '{split}' is unknown. Allowed: {', '.join(SPLITS)}")
    count = getattr(settings.prompts, split)
    try:
        captions = sample_captions(count, settings.prompts.seed, split)  # type: ignore[arg-type]
    except ValueError as error:
        raise UserError(f"prompts.{split}: {count} is too many: {error}") from None
    lines = [
        {"id": f"{split}-{index:05d}", "text": caption.text, "ambiguity": caption.ambiguity}
        for index, caption in enumerate(captions)
    ]
    write_text(output, "".join(json.dumps(line) + "\n" for line in lines))


def read_prompts(path: Path, needed: int = 1) -> PromptBatch:
    """Read a prompt set of at least `needed` prompts; `ambiguity` may be missing (NaN).

    Raises:
        UserError: naming the file and line of what is missing, empty, malformed or given twice.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file: there are no prompts") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as prompts: {error}") from None
    found: dict[str, tuple[str, float]] = {}
    for number, line in enumerate(lines, start=1):
        try:
            identifier, text, ambiguity = _prompt(json.loads(line))
        except ValueError as error:
            reason = "is not JSON" if isinstance(error, json.JSONDecodeError) else error
            raise UserError(f"{path}, line {number}: {reason}") from None
        if identifier in found:
            raise UserError(f"{path}, line {number}: id '{identifier}' is given twice")
        found[identifier] = text, ambiguity
    if len(found) < needed:
        raise UserError(f"{path}: holds {len(found)} prompts, but {needed} are needed")
    texts, ambiguities = zip(*found.values(), strict=True)
    return PromptBatch(list(found), list(texts), list(ambiguities))


def _prompt(entry: Any) -> tuple[str, str, float]:
    """Id, text and ambiguity of one line; `ValueError` says what is wrong."""
    if not isinstance(entry, dict) or not isinstance(entry.get("text"), str) or "id" not in entry:
        raise ValueError("needs a JSON object with 'id' and 'text'")
    identifier, text, ambiguity = entry["id"], entry["text"].strip(), entry.get("ambiguity")
    if not isinstance(identifier, str) or not ID.fullmatch(identifier):
        raise ValueError(f"id {identifier!r} may hold only letters, digits, '_', '-' and '.'")
    if not text:
        raise ValueError("'text' is empty")
    if ambiguity is None:
        return identifier, text, math.nan
    if isinstance(ambiguity, bool) or not isinstance(ambiguity, (int, float)):
        raise ValueError(f"ambiguity {ambiguity!r} is not a number")
    return identifier, text, float(ambiguity)
