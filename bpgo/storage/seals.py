"""JSON files that are read back: one reader, and a seal of what was written and whose it is.

A seal is the entry `seal` of a file: `of`, words for what the file holds (`sealed_of`), and
`sha256`, the digest of all else. Tables have theirs in the metadata (`bpgo.storage.tables`).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from bpgo.errors import UserError, shown
from bpgo.storage.files import write_json

SEAL, OF, DIGEST = "seal", "of", "sha256"
NUMBER = (int, float)
Kinds = Mapping[str, type | tuple[type, ...]]
NAMES = {
    dict: "an object",
    list: "a list",
    str: "a text",
    int: "a whole number",
    NUMBER: "a number",
}


def sealed_of(what: str, place: str, digest: str) -> str:
    """Words for what a file holds, such as `scores of clear/grpo/seed_1 (settings 0123abcd)`.

    `digest` is of the settings that it follows from.
    """
    return f"{what} of {place} (settings {digest})"


def again(command: str) -> str:
    """What to do about a file that `command` makes, as the end of a message."""
    return f"run `{command}` again (the workflow does so when the file is gone)"


def write_sealed(path: Path, value: Mapping[str, Any], of: str = "") -> None:
    """Write a JSON object with its seal; `of`: what it holds (empty: not said)."""
    write_json(path, {**value, SEAL: {OF: of, DIGEST: _digest(value, of)}})


def read_sealed(
    path: Path, remedy: str, of: str = "", needs: Kinds | None = None, may: Kinds | None = None
) -> dict[str, Any]:
    """What `write_sealed` wrote, without the seal; see `read_object`.

    A file without a seal is taken: earlier versions wrote none.

    Raises:
        UserError: as `read_object`; the file was changed, or holds something else than `of` (empty:
            anything).
    """
    found = read_object(path, remedy, needs, may)
    if SEAL not in found:
        return found
    seal = found.pop(SEAL)
    made_of = seal.get(OF) if isinstance(seal, dict) else None
    if not isinstance(made_of, str) or seal.get(DIGEST) != _digest(found, made_of):
        raise UserError(f"{path}: was changed after it was written (by its {SEAL}); {remedy}")
    check_of(path, made_of, of, remedy)
    return found


def check_of(path: Path, found: str, wanted: str, remedy: str) -> None:
    """Refuse a file that holds something else than what is wanted; empty words fit anything."""
    if found and wanted and found != wanted:
        raise UserError(f"{path}: holds the {found}, not the {wanted}; {remedy}")


def read_object(
    path: Path, remedy: str, needs: Kinds | None = None, may: Kinds | None = None
) -> dict[str, Any]:
    """A JSON object from a file.

    Args:
        path: of the file.
        remedy: what to do about a file that cannot be taken, such as "run `draw` again".
        needs: keys that must be there, each with the type of its value.
        may: keys that may be there.

    Raises:
        UserError: naming the file, and the key: the file is missing, cut, not UTF-8, no object, or
            holds NaN; a key is missing or its value is of another type.
    """
    found: dict[str, Any] = read_value(path, remedy, dict)
    needs = needs or {}
    for key, kind in {**needs, **(may or {})}.items():
        if key not in found:
            if key in needs:
                raise UserError(f"{path}: has no '{key}'; {remedy}")
        elif not isinstance(found[key], kind) or isinstance(found[key], bool):
            raise UserError(
                f"{path}: {key} is {shown(found[key])}, which is not {NAMES[kind]}; {remedy}"
            )
    return found


def read_value(path: Path, remedy: str, kind: type) -> Any:
    """A JSON value of one type (dict or list) from a file; `UserError` as for `read_object`."""
    try:
        text = Path(path).read_text(encoding="utf-8")
        found = json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {remedy}") from None
    except (OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: cannot be read as JSON: {reason}; {remedy}") from None
    if not isinstance(found, kind):
        raise UserError(f"{path}: holds {shown(found)}, which is not {NAMES[kind]}; {remedy}")
    return found


def _digest(value: Mapping[str, Any], of: str) -> str:
    text = json.dumps([of, value], sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _finite(text: str) -> float:
    return float(text) if math.isfinite(float(text)) else _refuse(text)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")
