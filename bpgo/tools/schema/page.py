"""docs/configuration.md: every key of every file, made of the schemas."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from bpgo.config.library import NAMED, WITH_BASE
from bpgo.storage.files import repository_root
from bpgo.tools.schema.definitions import Node
from bpgo.tools.schema.descriptions import comments_of, settings_classes
from bpgo.tools.schema.files import KINDS, all_definitions
from bpgo.tools.schema.kinds import REGISTRIES, classes_of
from bpgo.tools.schema.values import default_text, value_text

PAGE = Path("docs", "configuration.md")
INTRODUCTION = """\
# Configuration

Every key of the files that you write. This page is made by `python -m bpgo schema --all` from the
classes that read the files; [README.md](../README.md#configuration) says how files go together.

Editors with a YAML language server (such as VS Code with its YAML extension) complete and explain
the same keys. Each shipped file begins with a line that names its schema. Begin yours with the one
that fits, with the way from your file to `config/schema` of this clone:

```yaml
# yaml-language-server: $schema=../config/schema/overlay.json
```

{schemas}

`python -m bpgo schema --of KIND` prints one of them. They complete the names of files that were in
`config` when they were made, and take other names too: after a change of the code, or to have your
own files completed, make them again by `python -m bpgo schema --all`. Rules that join several keys,
such as a group size that a batch must hold, are checked by `python -m bpgo resolve`, and before the
first job of every call.

Numbers may be written as `1e-4`. Without a default, a key that is not *required* is left out where
it does not apply."""
FURTHER = {
    "arms": "`base: NAME` names another file of this folder; then only what differs is stated,"
    " and `null` leaves out a key that the base has. What an arm states is explained in"
    " [algorithms.md](algorithms.md).",
    "trust": "`base: NAME` as for arms. [trust.md](trust.md) explains the rules.",
    "prompts": "[prompts.md](prompts.md) explains them.",
    "models": "[models.md](models.md) explains them.",
}


def page(folder: Path | None = None) -> str:
    """The page in Markdown; `folder` is as for `bpgo.tools.schema.files.schemas`."""
    found = all_definitions(folder or repository_root() / "config")
    listed = "\n".join(f"- `{kind}.json`: {title}" for kind, title in KINDS.items())
    parts = [INTRODUCTION.replace("{schemas}", listed), "## A configuration"]
    parts += ["`config/config.yaml` and the files beside it.", *_tables(found["config"], found, "")]
    for kind in NAMED:
        parts += [f"## Files of config/{kind}", FURTHER.get(kind, "")]
        if kind == "models":
            parts += _tables(found[kind], found, " of a model")
        else:
            parts += _families(kind, found)
    parts += ["## config/instrument.yaml", "[instrument.md](instrument.md) explains it."]
    parts += _tables(found["SearchSettings"], found, "")
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def _tables(node: Node, found: dict[str, Node], whose: str) -> list[str]:
    """The table of a mapping, then those of the blocks in it."""
    parts = [_table(node["properties"], node.get("required", []))]
    for way, name in _blocks(node, found):
        inner = found[name]
        parts += [f"### `{way}`{whose}", _docstring(name)]
        parts.append(_table(inner["properties"], inner.get("required", [])))
    return parts


def _families(kind: str, found: dict[str, Node]) -> list[str]:
    """What all files of a folder have, then what each class of them adds."""
    key, known, _ = REGISTRIES[kind]
    classes = classes_of(kind)
    owners: dict[tuple[str, ...], list[type[BaseModel]]] = {}
    for owner, names in _words_by_owner(classes, key).items():
        owners.setdefault(tuple(sorted(names)), []).append(owner)
    where = " where there is no `base`" if kind in WITH_BASE else ""
    parts = [f"`{key}` is required{where}: {_listed(sorted(known))}."]
    told: set[str] = set()
    for words in sorted(owners, key=lambda each: (-len(each), each)):
        shared = len(words) == len(known)
        parts.append("### Every file" if shared else f"### {key}: {_listed(words)}")
        parts.append(_docstring(owners[words][0].__name__))
        own: dict[str, Node] = {}
        required: list[str] = []
        for owner in owners[words]:
            more, needed = _properties(owner, key, classes, found)
            own, required = own | more, required + needed
        parts.append(_table(own, required))
        for way, name in _blocks({"properties": own}, found):
            if name not in told:
                told.add(name)
                inner = found[name]
                parts += [f"#### `{way}`", _docstring(name)]
                parts.append(_table(inner["properties"], inner.get("required", [])))
    return parts


def _words_by_owner(
    classes: dict[type[BaseModel], list[str]], key: str
) -> dict[type[BaseModel], list[str]]:
    """By class that defines keys: the words of all files that have them."""
    found: dict[type[BaseModel], list[str]] = {}
    for model, names in classes.items():
        for owner in model.__mro__:
            if _own(owner, key):
                found.setdefault(owner, []).extend(names)
    return found


def _listed(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)


def _properties(
    owner: type[BaseModel], key: str, classes: Iterable[type[BaseModel]], found: dict[str, Node]
) -> tuple[dict[str, Node], list[str]]:
    """The keys that a class adds, each as a class has it that does not define it again."""
    own: dict[str, Node] = {}
    required: list[str] = []
    for field in _own(owner, key):
        for model in classes:
            first = next((each for each in model.__mro__ if field in _own(each, key)), None)
            if first is owner:
                name = model.model_fields[field].alias or field
                own[name] = found[model.__name__]["properties"][name]
                required += [name] if name in found[model.__name__].get("required", []) else []
                break
    return own, required


def _own(owner: type, key: str) -> list[str]:
    """The fields that a class defines itself, but the one that says which class a file is of."""
    if not issubclass(owner, BaseModel) or owner is BaseModel:
        return []
    return [field for field in comments_of(owner) if field in owner.model_fields and field != key]


def _blocks(node: Node, found: dict[str, Node], way: str = "") -> Iterator[tuple[str, str]]:
    """The settings classes that values are of, with the keys that lead there."""
    for key, value in node.get("properties", {}).items():
        for inner, name in _classes_in(value, f"{way}.{key}" if way else key):
            yield inner, name
            yield from _blocks(found[name], found, inner)


def _classes_in(node: Node, way: str) -> Iterator[tuple[str, str]]:
    name = node.get("$ref", "").rpartition("/")[2]
    if name in _classes():
        yield way, name
    for each in node.get("anyOf", []):
        yield from _classes_in(each, way)
    if isinstance(node.get("additionalProperties"), dict):
        yield from _classes_in(node["additionalProperties"], f"{way}.NAME")


def _classes() -> dict[str, Any]:
    """Every settings class by its name, those that only others are built on too."""
    return {
        owner.__name__: owner
        for model in settings_classes()
        for owner in model.__mro__
        if issubclass(owner, BaseModel)
    }


def _docstring(name: str) -> str:
    """What a class says of itself, in one paragraph."""
    text = inspect.getdoc(_classes()[name]) or ""
    return " ".join(text.split())


def _table(properties: dict[str, Node], required: list[str]) -> str:
    lines = ["| Key | Value | Default | |", "| --- | --- | --- | --- |"]
    for key, node in properties.items():
        cells = [f"`{key}`", value_text(node), default_text(key, node, required)]
        cells.append(node.get("description", ""))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)
