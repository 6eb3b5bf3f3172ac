"""The schema of each kind of file that a person writes: config/schema/{kind}.json.

They accept what `resolve` accepts, but for the rules that join several keys, and refuse a key that
is unknown where it stands. With them editors complete and explain keys, names of files and values.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bpgo.config.resolve import KEYS, WORKFLOW_OPTIONS
from bpgo.config.search import CHANGED, SEARCH
from bpgo.config.yaml_files import SCHEMA_LINE
from bpgo.errors import UserError, suggest
from bpgo.storage.files import repository_root
from bpgo.tools.schema.changes import Changes, or_null
from bpgo.tools.schema.definitions import Node, definitions, reference
from bpgo.tools.schema.kinds import add_kinds

DIALECT = "https://json-schema.org/draft/2020-12/schema"
FOLDER = Path("config", "schema")
KINDS = {
    "config": "A configuration",
    "overlay": "What differs from a configuration that this file is laid over",
    "arms": "An arm",
    "features": "A feature extractor",
    "models": "A model",
    "prompts": "A prompt set",
    "rewards": "A reward",
    "trust": "A trust rule",
    "instrument": "A search of training settings",
}
# The workflow's own options, which a configuration may hold too.
OPTIONS: dict[str, Node] = {
    "root": {
        "type": "string",
        "pattern": "^results(/(?!reference)[a-z0-9_]+)*$",
        "description": "Folder of the results: results, or a folder of your own below it.",
    },
    "allow_mixed": {
        "type": "boolean",
        "description": "Whether runs that different versions of the code made are joined.",
    },
    "warm": {
        "type": "boolean",
        "description": "Whether jobs are forked from a process that has made the imports.",
    },
    "pretrain_seed": {
        "type": "integer",
        "minimum": 0,
        "maximum": 2**31 - 1,
        "description": "Seed of the weights that `snakemake pretrain` makes.",
    },
}
OPTIONS = {key: {**OPTIONS[key], "default": value} for key, value in WORKFLOW_OPTIONS.items()}


def first_line(file: Path) -> str:
    """The line that names the schema of a file, given below `config`, to editors."""
    parts = Path(file).parts
    if len(parts) == 1:
        return f"{SCHEMA_LINE}{FOLDER.name}/{'instrument' if parts[0] == SEARCH else 'config'}.json"
    kind = {"overlays": "overlay", "searches": "instrument"}.get(parts[0], parts[0])
    return f"{SCHEMA_LINE}../{FOLDER.name}/{kind}.json"


def schemas(folder: Path | None = None) -> dict[str, Node]:
    """By kind of file; `folder`, else this clone's config, has the files whose names complete."""
    found = all_definitions(folder or repository_root() / "config")
    made = {}
    for kind, title in KINDS.items():
        whole = {"$schema": DIALECT, "title": title, **found[kind]}
        made[kind] = {**whole, "$defs": {name: found[name] for name in _used(whole, found)}}
    return made


def schema_text(kind: str, folder: Path | None = None) -> str:
    """One of them as its file holds it.

    Raises:
        UserError: for another kind than those of `KINDS`.
    """
    if kind not in KINDS:
        raise UserError(
            f"--of: '{kind}' is unknown.{suggest(kind, KINDS)} Allowed: {', '.join(KINDS)}"
        )
    return _text(schemas(folder)[kind])


def files(folder: Path | None = None) -> dict[Path, str]:
    """What each file of the clone's `config/schema` holds, by its path in the clone."""
    return {FOLDER / f"{kind}.json": _text(node) for kind, node in schemas(folder).items()}


def all_definitions(folder: Path) -> dict[str, Node]:
    """Every settings class, every kind of file, and what may be laid over them, by name."""
    found = definitions(folder)
    experiment = found["ExperimentSettings"]["properties"]
    experiment["arms"] = _arms(experiment["arms"])
    add_kinds(found)
    whole = _config(found)
    changed = Changes(found).of_object(whole)
    inner = {k: v for k, v in changed["properties"].items() if k not in WORKFLOW_OPTIONS}
    found["smoke"] = {**changed, "properties": inner}
    said = "What `snakemake smoke` has in the place of the values above."
    smoke = {"smoke": or_null({**reference("smoke"), "description": said})}
    found["config"] = {**whole, "properties": whole["properties"] | smoke}
    found["overlay"] = {**changed, "properties": changed["properties"] | smoke}
    found["instrument"] = _instrument(found)
    return found


def _config(found: dict[str, Node]) -> Node:
    """A configuration without its key `smoke`: settings, with names in the place of files."""
    settings = found["Settings"]
    properties = {key: settings["properties"][key] for key in settings["properties"] if key in KEYS}
    for key, kind in {"model": "models", "prompts": "prompts", "features": "features"}.items():
        name = {**reference(f"{kind}_name"), "description": properties[key]["description"]}
        properties[key] = or_null(name) if key == "features" else name
    said = "Single values of named files that differ in this configuration."
    overrides = or_null({**reference("overrides"), "description": said})
    properties |= {"overrides": overrides, **OPTIONS}
    properties["sweeps"] = or_null(properties["sweeps"])
    return {
        "type": "object",
        "additionalProperties": False,
        "required": [key for key in settings["required"] if key in KEYS],
        "properties": properties,
    }


def _arms(whole: Node) -> Node:
    """A list of names, or all files but some."""
    names = {key: value for key, value in whole.items() if key != "description"}
    left_out = {
        "type": "array",
        "items": reference("arms_name"),
        "description": "Arms that are left out.",
    }
    all_but = {
        "type": "object",
        "required": ["all_but"],
        "additionalProperties": False,
        "properties": {"all_but": left_out},
    }
    return {"anyOf": [names, all_but], "description": whole["description"]}


def _instrument(found: dict[str, Node]) -> Node:
    """A search, whose candidates change some blocks of a configuration."""
    search = found["SearchSettings"]
    changed = {key: found["overlay"]["properties"][key] for key in CHANGED}
    one = {"type": "object", "additionalProperties": False, "properties": changed}
    candidates = {**search["properties"]["candidates"], "additionalProperties": one}
    return {**search, "properties": {**search["properties"], "candidates": candidates}}


def _text(node: Node) -> str:
    return json.dumps(node, indent=1, ensure_ascii=False) + "\n"


def _used(node: Node, found: dict[str, Node]) -> list[str]:
    """The names of the definitions that `node` needs."""
    names: set[str] = set()
    waiting = list(_references(node))
    while waiting:
        name = waiting.pop()
        if name not in names:
            names.add(name)
            waiting += _references(found[name])
    return sorted(names)


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"].rpartition("/")[2]
        node = list(node.values())
    if isinstance(node, list):
        for each in node:
            yield from _references(each)
