"""Prompt sets: one JSON line per prompt."""

from __future__ import annotations

import json
import math
from pathlib import Path

from bpgo.errors import UserError
from bpgo.files import write_text
from bpgo.records import PromptBatch
from bpgo.settings import Settings

SPLITS = ("train", "evaluation")


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


def read_prompts(path: Path) -> PromptBatch:
    """Read a prompt set; `ambiguity` may be missing (NaN).

    Raises:
        UserError: naming the file and line of what is missing, empty or given twice.
    """
    if not Path(path).exists():
        raise UserError(f"{path}: no such file: there are no prompts")
    ids: list[str] = []
    texts: list[str] = []
    ambiguities: list[float] = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), start=1):
        try:
            entry = json.loads(line)
            identifier, text = entry["id"], entry["text"].strip()
            ambiguity = entry.get("ambiguity")
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError):
            raise UserError(
                f"{path}, line {number}: needs a JSON object with 'id' and 'text'"
            ) from None
        if not text:
            raise UserError(f"{path}, line {number}: 'text' is empty")
        if identifier in ids:
            raise UserError(f"{path}, line {number}: id '{identifier}' is given twice")
        ids.append(identifier)
        texts.append(text)
        ambiguities.append(math.nan if ambiguity is None else float(ambiguity))
    if not ids:
        raise UserError(f"{path}: holds no prompt")
    return PromptBatch(ids, texts, ambiguities)
