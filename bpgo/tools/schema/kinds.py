"""Schemas of the files that a configuration names, and of what it overrides in them.

Into the definitions go, for each folder of such files: `{kind}`, a whole file; `{kind}_change`,
single values of one; and of those that may build on another, `{kind}_based`.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from bpgo import registry
from bpgo.config.library import NAMED, WITH_BASE
from bpgo.tools.schema.changes import Changes, union_of
from bpgo.tools.schema.definitions import Node, reference

# The key that says which class a file is of, and the classes by its word.
REGISTRIES = {
    "arms": ("algorithm", registry.ARMS, registry.load_arm_class),
    "trust": ("rule", registry.TRUST, registry.load_trust_class),
    "rewards": ("kind", registry.REWARDS, registry.load_reward_class),
    "features": ("kind", registry.FEATURES, registry.load_features_class),
    "prompts": ("kind", registry.PROMPTS, registry.load_prompts_class),
}


def classes_of(kind: str) -> dict[type[BaseModel], list[str]]:
    """The settings classes of a folder of files, each with the words that name it."""
    _, known, load = REGISTRIES[kind]
    found: dict[type[BaseModel], list[str]] = {}
    for word in sorted(known):
        found.setdefault(load(word).Settings, []).append(word)
    return found


def add_kinds(found: dict[str, Node]) -> None:
    """Put the files of all folders into the definitions `found`, and `overrides` of them."""
    model = found["ModelSettings"]
    word = {**model["properties"]["kind"], "enum": sorted(registry.MODELS)}
    found["models"] = {**model, "properties": {**model["properties"], "kind": word}}
    unions = {"models": found["models"]}
    for kind in REGISTRIES:
        unions[kind] = _add_whole(kind, found)
    for kind in NAMED:
        changed = Changes(found, nullable=kind in WITH_BASE).of_object(unions[kind])
        if kind in WITH_BASE:
            base = {**reference(f"{kind}_name"), "description": f"Another file of config/{kind}."}
            changed["properties"] = {"base": base, **changed["properties"]}
            found[f"{kind}_based"] = {
                **changed,
                "description": "What differs from `base`; null leaves a key of it out.",
                "required": ["base"],
            }
            whole = found[kind]
            found[kind] = {
                "if": {"required": ["base"]},
                "then": reference(f"{kind}_based"),
                "else": whole,
            }
        found[f"{kind}_change"] = changed
    found["overrides"] = _overrides(found)


def _add_whole(kind: str, found: dict[str, Node]) -> Node:
    """A file that states all its keys; returns the mapping that may have the keys of any class."""
    key, known, _ = REGISTRIES[kind]
    choices = []
    models = classes_of(kind)
    for model, words in models.items():
        node = found[model.__name__]
        said = node["properties"][key]["description"]
        node["properties"][key] = {"enum": words, "description": said}
        choices.append(
            {"if": {"properties": {key: {"enum": words}}}, "then": reference(model.__name__)}
        )
    word = {"enum": sorted(known), "description": said}
    found[kind] = {
        "type": "object",
        "required": [key],
        "properties": {key: word},
        "allOf": choices,
    }
    union = union_of([found[model.__name__] for model in models])
    union["properties"][key] = word
    return union


def _overrides(found: dict[str, Node]) -> Node:
    """Changes of single values in named files; completed for the files that are there."""
    properties: dict[str, Any] = {}
    for kind in NAMED:
        one = reference(f"{kind}_change")
        names = found[f"{kind}_name"]["anyOf"][0]["enum"]
        properties[kind] = {
            "type": "object",
            "description": f"Values of files of config/{kind}, by the file's name.",
            "properties": dict.fromkeys(names, one),
            "additionalProperties": one,
        }
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
    }
