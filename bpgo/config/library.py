"""The files of a configuration: read, merged, checked, with one message for each mistake."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from bpgo.config.fields import NAME, NAME_LENGTH
from bpgo.config.messages import PATTERNS, explain, join, unknown_key
from bpgo.config.yaml_files import read_yaml
from bpgo.errors import UserError, shortened, shown, suggest

Model = TypeVar("Model", bound=BaseModel)

# Folders of named files; `overrides` changes single values of one for this configuration.
NAMED = ("arms", "features", "models", "prompts", "rewards", "trust")
# A file there may say `base: NAME`, another file of its folder, and then what differs.
WITH_BASE = ("arms", "trust")
NOT_INHERITED = ("title", "source")
FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
# Keys that say where files lie, and which: one list of places serves several configurations.
PLACES = (
    *("path", "host", "format", "revision", "sha256", "checkpoint", "config", "architecture"),
    *("base", "base_revision", "clip", "clip_revision"),
    *("processor", "processor_revision", "tokenizer", "tokenizer_revision"),
)
# Keys that hold a trust rule: a name of the folder `trust`, or a mapping.
RULES = ("trust", "of")


def validate(schema: type[Model], values: Any, file: str, prefix: str = "") -> Model:
    """`values` as `schema`; a `UserError` lists every mistake with its key, value and file."""
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        raise UserError(explain(schema, error, file, prefix)) from None


def merge(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """`change` over `base`: mappings merge, everything else is replaced.

    Of a trust rule, a mapping changes single values of the rule that is there, by name or as a
    mapping; a name, or a mapping with `base` or `rule`, takes its place.
    """
    merged = dict(base)
    for key, value in change.items():
        old = base.get(key)
        if key in RULES and isinstance(value, dict):
            if "base" in value or "rule" in value:
                old = None
            elif isinstance(old, str):
                old = {"base": old}
        both = isinstance(value, dict) and isinstance(old, dict)
        merged[key] = merge(old, value) if both else value  # type: ignore[arg-type]
    return merged


@dataclass(frozen=True)
class Library:
    """The files that a configuration names, with what it overrides in them."""

    folder: Path
    overrides: dict[str, dict[str, dict[str, Any]]]
    file: str  # the configuration
    used: set[tuple[str, str]] = field(default_factory=set)  # kind and name of what was read
    bases: dict[tuple[str, str], str] = field(default_factory=dict)  # of what was read

    def read(
        self, kind: str, name: str, file: str, key: str, inside: tuple[str, ...] = ()
    ) -> tuple[str, dict[str, Any]]:
        """The file `folder/kind/name.yaml`: its path and its values, over those of its base.

        What the configuration overrides in a file belongs to it, for files that it is the base of
        too. `key` of the configuration `file` holds `name`; `inside` are the files of this kind
        that wait for it.
        """
        path = self.folder / kind / f"{name}.yaml"
        if not _is_name(name) or not path.is_file():
            word = f"'{shortened(name, NAME_LENGTH)}' is unknown: "
            raise UserError(f"{file}: {key}: {word}{_no_file(self.folder / kind, name)}")
        if name in inside:
            circle = " -> ".join([*inside[inside.index(name) :], name])
            raise UserError(f"{file}: {key}: '{name}' is built on itself: {circle}")
        self.used.add((kind, name))
        label, values = str(path), read_yaml(path, cut=False)
        change = self.overrides.get(kind, {}).get(name)
        if change is not None:
            label = f"{path} (with {self.file}: overrides.{kind}.{name})"
            check_says(values, change, label)
            values = merge(values, change)
        if kind not in WITH_BASE or "base" not in values:
            return label, values
        base = values.pop("base")
        if not isinstance(base, str):
            raise UserError(f"{label}: base: must name a file of {path.parent}, not {shown(base)}")
        self.bases[kind, name] = base
        _, above = self.read(kind, base, label, "base", (*inside, name))
        kept = {key: value for key, value in above.items() if key not in NOT_INHERITED}
        check_says(kept, values, label)
        return label, merge(kept, values)

    def check_used(self, overrides: dict[str, Any], tuned: Iterable[str]) -> None:
        """Each of these `overrides` is of a file that was read, or says only where files lie.

        Left out are trust rules, which the trust track reads, and the arms `tuned`, that have
        learning rates of their own: lists of both serve several configurations.

        Raises:
            UserError: naming the first value that cannot act.
        """
        for kind, entries in overrides.items():
            read = sorted(name for found, name in self.used if found == kind)
            for name in entries if kind != "trust" else ():
                idle = [key for key in leaves(entries[name]) if key[-1] not in PLACES]
                if name in read or not idle or (kind == "arms" and name in tuned):
                    continue
                raise UserError(
                    f"{self.file}: overrides.{join(kind, name, *idle[0])}: cannot act, for nothing"
                    f" here uses {name}.{suggest(name, read)} Used of {kind}:"
                    f" {', '.join(read) or 'none'}"
                )


def library(folder: Path, overrides: Any, file: str) -> Library:
    """The files of `folder` with the `overrides` of the configuration `file`, whose keys exist."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for kind, entries in mapping(overrides, "overrides", file).items():
        if kind not in NAMED:
            raise UserError(unknown_key(file, f"overrides.{kind}", str(kind), list(NAMED)))
        found[kind] = {}
        for name, change in mapping(entries, f"overrides.{kind}", file).items():
            if not _is_name(name) or not (folder / kind / f"{name}.yaml").is_file():
                raise UserError(f"{file}: overrides.{kind}: {_no_file(folder / kind, name)}")
            found[kind][name] = mapping(change, f"overrides.{kind}.{name}", file)
    return Library(folder, found, file)


def registered(
    values: dict[str, Any], key: str, known: dict[str, str], what: str, file: str, prefix: str = ""
) -> str:
    """The word at `key`, which must be one of the registry's; `prefix` leads to `values`."""
    word = values.get(key)
    if not isinstance(word, str) or word not in known:
        raise UserError(
            f"{file}: {join(prefix, key)}: {shown(word)} is not {what}.{suggest(str(word), known)}"
            f" Known: {', '.join(sorted(known))}"
        )
    return word


def optional(value: Any, key: str, file: str) -> dict[str, Any]:
    """`value`, which must be a mapping, or nothing: null."""
    return {} if value is None else mapping(value, key, file)


def mapping(value: Any, key: str, file: str) -> dict[str, Any]:
    """`value`, which must be a mapping."""
    if not isinstance(value, dict):
        raise UserError(
            f"{file}: {shortened(key)}: must be a mapping of names to entries, not {shown(value)}"
        )
    return value


def check_says(values: dict[str, Any], change: dict[str, Any], file: str, above: str = "") -> None:
    """No mapping of `change` is empty over one that holds something: it would change nothing."""
    for key, value in change.items():
        old, place = values.get(key), join(above, key)
        if value == {} and old and (isinstance(old, dict) or key in RULES):
            raise UserError(
                f"{file}: {place}: is empty, which changes nothing of {shown(old)}: say what"
                " differs, or leave it out"
            )
        if isinstance(value, dict) and isinstance(old, dict):
            check_says(old, value, file, place)


def leaves(values: dict[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The ways to all values that are no mappings."""
    for name, value in values.items():
        path = (*above, str(name))
        if isinstance(value, dict):
            yield from leaves(value, path)
        else:
            yield path


def named(value: Any, key: str, file: str) -> dict[str, Any]:
    """`value`, which must be a mapping whose keys become folders and files."""
    for name in mapping(value, key, file):
        if len(name) > NAME_LENGTH or not re.fullmatch(NAME, name):
            raise UserError(
                f"{file}: {key}: {shown(name)} is not allowed: it must be {PATTERNS[NAME]},"
                f" of at most {NAME_LENGTH} characters"
            )
    return dict(value)


def _no_file(folder: Path, name: Any) -> str:
    """Why `name` is no named file of a folder, and which there are."""
    word = shortened(name, NAME_LENGTH)
    path = folder / f"{word}.yaml"
    if _is_name(name) and path.is_symlink():
        return f"{path} is a link that leads to no file"
    if _is_name(name) and path.exists():
        return f"{path} is no file"
    known = sorted(entry.stem for entry in folder.glob("*.yaml") if entry.is_file())
    return f"there is no {path}.{suggest(word, known)} Known: {', '.join(known)}"


def _is_name(name: Any) -> bool:
    """Whether it may name a file of a configuration's folder."""
    return (
        isinstance(name, str) and len(name) <= NAME_LENGTH and FILE_NAME.fullmatch(name) is not None
    )
