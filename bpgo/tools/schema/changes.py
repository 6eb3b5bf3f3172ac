"""Schemas of a part: of what a file, laid over another one, may say."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bpgo.tools.schema.definitions import Node, reference

NOTHING: Node = {"type": "null"}
REPLACE: Node = {
    "const": True,
    "description": "Nothing of the mapping that is there stays.",
}
WORDS = ("description", "default")  # of a value, not what it may be
# A rule that is there, by its name or whole, has single values changed.
INSTEAD = {"trust": "trust_change"}


def or_null(node: Node) -> Node:
    """What may also be null; the description stays outside, where editors look for it."""
    kept = {key: value for key, value in node.items() if key in WORDS}
    bare = without_words(node)
    choices = bare["anyOf"] if set(bare) == {"anyOf"} else [bare]
    return {"anyOf": _flat([*choices, NOTHING]), **kept}


class Changes:
    """Makes of each definition one in which no key is required, as `{name}Change`.

    A mapping may be null, which takes it away; with `nullable` so may every value, as in a file
    with a `base`. Lists are replaced, so their items stay whole.
    """

    def __init__(self, found: dict[str, Node], nullable: bool = False) -> None:
        self.found, self.nullable = found, nullable
        self.ending = "NullableChange" if nullable else "Change"

    def of_object(self, node: Node) -> Node:
        """A change of the mapping that `node` describes."""
        properties = {key: self.of(value) for key, value in node.get("properties", {}).items()}
        made = {key: value for key, value in node.items() if key not in ("required", "default")}
        made.pop("minProperties", None)
        made["properties"] = {**properties, "replace": REPLACE}
        if isinstance(node.get("additionalProperties"), dict):
            made["additionalProperties"] = self.of(node["additionalProperties"])
        return made

    def of(self, node: Node) -> Node:
        """A change of any value."""
        words = {key: value for key, value in node.items() if key == "description"}
        name = node.get("$ref", "").rpartition("/")[2]
        if name in INSTEAD:
            return or_null({**reference(INSTEAD[name]), **words})
        if name and self._is_mapping(self.found[name]):
            return or_null({**self._change_of(name), **words})
        if self._is_mapping(node):
            return or_null({**self.of_object(node), **words})
        if "anyOf" in node:
            node = {**node, "anyOf": _flat([self.of(part) for part in node["anyOf"]])}
        return or_null(node) if self.nullable else node

    def _change_of(self, name: str) -> Node:
        changed = f"{name}{self.ending}"
        if changed not in self.found:
            self.found[changed] = {}  # it may hold itself
            self.found[changed] = self.of_object(self.found[name])
        return reference(changed)

    @staticmethod
    def _is_mapping(node: Node) -> bool:
        return node.get("type") == "object" and "allOf" not in node


def union_of(nodes: Iterable[Node]) -> Node:
    """A mapping that may have the keys of all `nodes`, each with any of its values there."""
    found: dict[str, list[Node]] = {}
    for node in nodes:
        for key, value in node["properties"].items():
            seen = found.setdefault(key, [])
            if without_words(value) not in [without_words(each) for each in seen]:
                seen.append(value)
    properties = {
        key: values[0]
        if len(values) == 1
        else {
            "anyOf": _flat([without_words(value) for value in values]),
            "description": " ".join(dict.fromkeys(value["description"] for value in values)),
        }
        for key, values in found.items()
    }
    return {"type": "object", "additionalProperties": False, "properties": properties}


def without_words(node: Node) -> Node:
    """What a value may be, without what is said of it."""
    return {key: value for key, value in node.items() if key not in WORDS}


def _flat(nodes: list[Node]) -> list[Node]:
    """Choices of choices as one list, each choice once."""
    found: list[Node] = []
    for node in nodes:
        parts: list[Any] = node["anyOf"] if set(node) == {"anyOf"} else [node]
        found += [part for part in parts if part not in found]
    return found
