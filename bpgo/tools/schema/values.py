"""What a key may hold, in words, from its schema."""

from __future__ import annotations

import json
from typing import Any

from bpgo.config.fields import LARGEST
from bpgo.tools.schema.definitions import Node

PLAIN = {"string": "text", "boolean": "`true` or `false`", "null": "`null`"}
COUNTS = {1: "at least one", 2: "at least two"}


def value_text(node: Node) -> str:
    """Such as "integer ≥ 1" or "list: name of a file of `config/arms`"."""
    if "$ref" in node:
        name = node["$ref"].rpartition("/")[2]
        if name.endswith("_name"):
            return f"name of a file of `config/{name.removesuffix('_name')}`"
        return "block"
    if "anyOf" in node:
        return " or ".join(dict.fromkeys(value_text(each) for each in node["anyOf"]))
    if "enum" in node:
        return ", ".join(f"`{_word(each)}`" for each in node["enum"] if each is not False)
    if "const" in node:
        return f"`{_word(node['const'])}`"
    return _of_type(node)


def _of_type(node: Node) -> str:
    kind = node.get("type", "anything")
    if kind == "array":
        return _list(node)
    if kind == "object":
        inner = node.get("additionalProperties")
        return f"by name: {value_text(inner)}" if isinstance(inner, dict) else "block"
    if kind == "integer" or "number" in kind:
        return _number("integer" if kind == "integer" else "number", node)
    return PLAIN.get(kind, str(kind))


def _list(node: Node) -> str:
    inner = value_text(node["items"]) if node.get("items") else "anything"
    least, most = node.get("minItems"), node.get("maxItems")
    if least and least == most:
        return f"list of {least}: {inner}"
    return f"list: {inner}" + (f" ({COUNTS[least]})" if least else "")


def _number(word: str, node: Node) -> str:
    low, high = node.get("minimum"), node.get("maximum")
    above, below = node.get("exclusiveMinimum"), node.get("exclusiveMaximum")
    said = []
    if low is not None:
        said.append(f"≥ {low:g}")
    if above is not None:
        said.append(f"> {above:g}")
    if high is not None and high != LARGEST:
        said.append(f"≤ {high:g}")
    if below is not None:
        said.append(f"< {below:g}")
    if "multipleOf" in node:
        said.append(f"a multiple of {node['multipleOf']}")
    return " ".join([word, ", ".join(said)]).strip()


def default_text(key: str, node: Node, required: list[str]) -> str:
    """The default, or that there is none."""
    if "default" in node:
        value: Any = node["default"]
        return "" if isinstance(value, dict) and value else f"`{_word(value)}`"
    return "*required*" if key in required else ""


def _word(value: Any) -> str:
    """A value as YAML writes it; text as it is."""
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
