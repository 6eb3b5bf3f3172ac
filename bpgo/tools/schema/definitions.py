"""A JSON schema for each settings class, as YAML files write it: with names of files, described."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from bpgo.config.fields import NAME, NAME_LENGTH
from bpgo.config.library import NAMED
from bpgo.tools.schema.descriptions import description_of, settings_classes

Node = dict[str, Any]

# Pydantic's words for the bounds of a number that is first read from text.
BOUNDS = {
    "ge": "minimum",
    "gt": "exclusiveMinimum",
    "le": "maximum",
    "lt": "exclusiveMaximum",
}
# Numbers that YAML 1.1 reads as text, such as 1e-4.
AS_TEXT = r"^[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$"
FIRST_WORD = re.compile(r"[a-z]{2,}[ ,;']")
# Keys whose value, or whose values in a list, name files of a folder.
NAMES_OF = {
    "ExperimentSettings": {
        "training_reward": "rewards",
        "judges": "rewards",
        "diagnostics": "rewards",
        "arms": "arms",
    },
    "PrimaryContrast": {"arm": "arms", "reference": "arms", "metric": "rewards"},
    "AnalysisSettings": {
        "main_metric": "rewards",
        "reference_arm": "arms",
        "own_variance": "arms",
    },
    "SweepSettings": {"arm": "arms"},
    "FrameMeanSettings": {"reward": "rewards"},
    "TrueReliabilitySettings": {"reward": "rewards"},
    "TrueRewardSettings": {"reward": "rewards"},
    "GardoSettings": {"auxiliary": "rewards"},
}
# A key of this class stands for a whole file of a folder, or for its name.
FILES_AS = {"TrustSettings": "trust", "FeatureSettings": "features"}
# Keys that need not be given, whatever pydantic says: filled in before the class sees them.
FILLED_IN = {"EvaluationSettings": ("curve_prompts",)}


def reference(name: str) -> Node:
    """What stands for the definition `name`."""
    return {"$ref": f"#/$defs/{name}"}


def definitions(folder: Path) -> dict[str, Node]:
    """By class, or by `{kind}_name` of the files of `folder`; draft 2020-12."""
    classes = settings_classes()
    _, made = models_json_schema([(each, "validation") for each in classes])
    by_name = {each.__name__: each for each in classes}
    found = {f"{kind}_name": _name_of(kind, folder) for kind in NAMED}
    for name, node in made["$defs"].items():
        if name in by_name:
            found[name] = _of_class(by_name[name], _as_written(node))
    return found


def _of_class(model: type[BaseModel], node: Node) -> Node:
    """With descriptions, names of files, and only the keys required that must be given."""
    name = model.__name__
    node["properties"] = {
        key: {**value, "description": _sentence(description_of(model, _field(model, key)))}
        for key, value in node.get("properties", {}).items()
    }
    for key, kind in NAMES_OF.get(name, {}).items():
        value = node["properties"][key]
        place = value["items"] if value.get("type") == "array" else value
        for word in ("type", "pattern", "maxLength"):
            place.pop(word)
        place.update(reference(f"{kind}_name"))
    required = [key for key in node.pop("required", []) if key not in FILLED_IN.get(name, ())]
    return {**node, "required": required} if required else node


def _field(model: type[BaseModel], key: str) -> str:
    """The field that a file calls `key`."""
    fields = model.model_fields
    return next((name for name, field in fields.items() if field.alias == key), key)


def _sentence(text: str) -> str:
    """With a capital, where the first word is no value, and a full stop."""
    text = text[0].upper() + text[1:] if FIRST_WORD.match(text) else text
    return text if text.endswith(".") else f"{text}."


def _as_written(node: Any) -> Any:
    """Pydantic's schema in the words of JSON Schema, of what a YAML file may hold."""
    if isinstance(node, list):
        return [_as_written(each) for each in node]
    if not isinstance(node, dict):
        return node
    word = node.get("$ref", "").rpartition("/")[2]
    if word in FILES_AS:
        kind = FILES_AS[word]
        return {"anyOf": [reference(f"{kind}_name"), reference(kind)]}
    made: Node = {}
    key: str
    for key, value in node.items():
        if key == "properties":
            made[key] = {name: _as_written(each) for name, each in value.items()}
        elif key == "default":
            made[key] = value
        elif key != "title":
            made[BOUNDS.get(key, key)] = _as_written(value)
    if made.get("type") == "number":
        made |= {"type": ["number", "string"], "pattern": AS_TEXT}
    if "off" in made.get("enum", ()):  # YAML 1.1 reads `off` as false
        made["enum"].append(False)
        made.pop("type", None)
    if "patternProperties" in made:
        [(pattern, value)] = made.pop("patternProperties").items()
        names = {**made.get("propertyNames", {}), "pattern": pattern}
        made |= {"additionalProperties": value, "propertyNames": names}
    return made


def _name_of(kind: str, folder: Path) -> Node:
    """The files that are there, to complete from; any other name may be one tomorrow."""
    names = sorted(path.stem for path in (Path(folder) / kind).glob("*.yaml"))
    return {
        "description": f"The name of a file of config/{kind}.",
        "anyOf": [
            {"enum": names},
            {"type": "string", "pattern": NAME, "maxLength": NAME_LENGTH},
        ],
    }
