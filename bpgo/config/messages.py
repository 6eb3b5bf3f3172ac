"""What is wrong with a value, in one line: its key, the value, what is allowed."""

from __future__ import annotations

import re
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from bpgo.config.fields import COMMIT, DOTTED, NAME, SHA256
from bpgo.errors import shortened, shown, suggest

# Keys that older configurations have, and where their values are now.
MOVED = {"analysis.primary": "experiments.NAME.primary"}
TOLD = 20  # mistakes in one message
# By the kind of a pydantic error: what the value must be.
ALLOWED = {
    "bool_type": "true or false",
    "dict_type": "a mapping of names to values",
    "finite_number": "a finite number",
    "float_type": "a finite number",
    "greater_than": "greater than {gt}",
    "greater_than_equal": "greater than or equal to {ge}",
    "int_type": "a whole number",
    "less_than": "less than {lt}",
    "less_than_equal": "less than or equal to {le}",
    "list_type": "a list",
    "literal_error": "{expected}",
    "model_type": "a mapping of keys to values",
    "string_pattern_mismatch": "text that matches {pattern}",
    "string_too_long": "text of at most {max_length} characters",
    "string_too_short": "text of at least {min_length} characters",
    "string_type": "text",
    "too_long": "a list of at most {max_length} entries",
    "too_short": "at least {min_length} entries",
}
# By the pattern that a text must match.
PATTERNS = {
    NAME: "a name of a-z, 0-9 and _",
    COMMIT: "a pinned revision (a commit of 40 hexadecimal digits)",
    SHA256: "a SHA-256 (64 hexadecimal digits)",
    DOTTED: "names of a-z, 0-9 and _, with dots between",
}


def explain(schema: type[BaseModel], error: ValidationError, file: str, prefix: str) -> str:
    """Every mistake in a line of its own: `file: key: value is not allowed: it must be ...`."""
    lines: list[str] = []
    wrong: dict[str, dict[str, list[str]]] = {}  # by value as shown: keys, with what they must be
    for problem in error.errors():
        location = _without_choices(schema, list(problem["loc"]))
        key = join(shortened(prefix), *(shortened(part) for part in location))
        if problem["type"] == "extra_forbidden":
            lines.append(unknown_key(file, key, location[-1], _keys_at(schema, location[:-1])))
        elif problem["type"] == "missing":
            lines.append(f"{file}: {key}: missing; this key is required")
        elif problem["type"] == "value_error":  # a rule that joins several keys
            lines.append(f"{file}: {key + ': ' if key else ''}{problem['ctx']['error']}")
        else:
            allowed = wrong.setdefault(shown(problem["input"]), {}).setdefault(key, [])
            allowed.append(_allowed(problem))
    places = [key for keys in wrong.values() for key in keys]
    for value, keys in wrong.items():
        # Of a list with a wrong entry it is not said that it is no number.
        kept = {key: keys[key] for key in keys if not any(p.startswith(f"{key}.") for p in places)}
        lines += _wrong(file, value, kept)
    lines = list(dict.fromkeys(lines))
    if len(lines) > TOLD:
        lines = [*lines[:TOLD], f"{file}: and {len(lines) - TOLD} more mistakes"]
    return "\n".join(lines)


def _wrong(file: str, value: str, keys: dict[str, list[str]]) -> list[str]:
    """A line for each key with a wrong value; one for all that have the same, as by an anchor."""
    by_reason: dict[str, list[str]] = {}
    for key, allowed in keys.items():
        by_reason.setdefault(" or ".join(dict.fromkeys(allowed)), []).append(key)
    lines = []
    for reason, found in by_reason.items():
        more = f" (so in {len(found) - 1} more keys)" if len(found) > 1 else ""
        lines.append(f"{file}: {found[0]}: {value} is not allowed: it must be {reason}{more}")
    return lines


def _allowed(problem: Any) -> str:
    """What a value must be, by pydantic's problem with it."""
    values = problem.get("ctx", {})
    if values.get("pattern") in PATTERNS:
        return PATTERNS[values["pattern"]]
    if problem["type"] not in ALLOWED:
        return str(problem["msg"])
    return ALLOWED[problem["type"]].format(**values)


def unknown_key(file: str, key: str, word: str, allowed: list[str]) -> str:
    """The message."""
    hint = f" It is {MOVED[key]} now." if key in MOVED else suggest(word, allowed)
    return f"{file}: {shortened(key)}: unknown key.{hint} Allowed: {', '.join(sorted(allowed))}"


def _without_choices(schema: Any, location: list[Any]) -> list[str]:
    """A place as the file has it, without pydantic's names for the kinds that a value may have."""
    found: list[str] = []
    current = schema
    for part in map(str, location):
        current = _present(current)
        if get_origin(current) in (Union, UnionType):  # `part` is such a name
            current = _chosen(current, part)
            continue
        if part != "[key]":  # of a name that is not allowed
            found.append(part)
        current = _inside(current, part)
    return found


def _keys_at(schema: type[BaseModel], location: list[str]) -> list[str]:
    """The keys that the schema knows at a place inside it."""
    current: Any = schema
    for part in location:
        current = _inside(_present(current), part)
    fields = getattr(_present(current), "model_fields", {})
    return [field.alias or name for name, field in fields.items()]


def _present(kind: Any) -> Any:
    """`X` of a key that may be left out, `X | None`, and of `X` with bounds."""
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if get_origin(kind) not in (Union, UnionType):
        return kind
    kinds = [each for each in get_args(kind) if each is not type(None)]
    return _present(kinds[0]) if len(kinds) == 1 else kind


def _chosen(kind: Any, name: str) -> Any:
    """Of several kinds the one that pydantic means by a name such as `list[...]`."""
    kinds = [_present(each) for each in get_args(kind) if each is not type(None)]
    listed = [each for each in kinds if get_origin(each) is list]
    others = [each for each in kinds if get_origin(each) is not list]
    return next(iter(listed if name.startswith("list") else others), None)


def _inside(kind: Any, part: str) -> Any:
    """The kind of what lies at a key, a name or a place in a list."""
    for name, field in getattr(kind, "model_fields", {}).items():
        if part in (name, field.alias):
            return field.annotation
    if get_origin(kind) in (dict, list):
        return get_args(kind)[-1]
    return None


def join(first: str, *parts: str) -> str:
    """Keys on the way down, with dots; the first may be none. In quotes, where blanks show."""
    words = [part if part and not re.search(r"\s", part) else f"'{part}'" for part in parts]
    return ".".join([first, *words] if first else words)
