"""YAML files, read strictly: what YAML 1.1 would take for something else is refused.

A key that is given twice (the first would vanish), a number with a leading zero (octal) or a colon
(sexagesimal), a date, a value that holds itself, tags, keys that are not text.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from bpgo.errors import UserError

# Begins the line that names a file's schema to editors.
SCHEMA_LINE = "# yaml-language-server: $schema="
# libyaml's, where PyYAML has it, is ten times as fast: 60 ms of the start of each job.
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
TAG = "tag:yaml.org,2002:"
KINDS = {f"{TAG}{kind}" for kind in ("null", "bool", "int", "float", "str", "seq", "map")}
OTHER_BASE = re.compile(r"[-+]?0[0-9_]+|[-+]?[0-9_]+(:[0-9_.]+)+")
NOT_PRINTED = yaml.reader.Reader.NON_PRINTABLE
NO_TEXT = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]")
SHOWN = 60  # characters of a wrong value


def read_yaml(path: Path, cut: bool = True) -> dict[str, Any]:
    """One YAML file as a mapping; `UserError` if it is missing, broken or something else.

    Half a file may still be valid, where what it lacks has defaults or is in its base: without
    `cut`, one whose last line has no end is refused.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
        if not cut and not text.endswith("\n"):
            raise yaml.YAMLError("its last line has no end: it may be cut; end it with a newline")
        values = _parsed(text)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except RecursionError:
        raise UserError(f"{path}: cannot be read as YAML: it is nested too deeply") from None
    except UnicodeDecodeError as error:
        line, byte = error.object.count(b"\n", 0, error.start) + 1, error.object[error.start]
        raise UserError(
            f"{path}: cannot be read as YAML: line {line}: the byte 0x{byte:02x} is no text in"
            " UTF-8: save the file in that encoding"
        ) from None
    # PyYAML lets Python's own errors through, such as those of a number with too many digits.
    except (OSError, UnicodeError, yaml.YAMLError, ValueError, TypeError, KeyError) as error:
        reason = " ".join(str(error).split())[:500]
        raise UserError(f"{path}: cannot be read as YAML: {reason}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: must hold a mapping of keys to values")
    return values


def _parsed(text: str) -> Any:
    """What a YAML text says; `yaml.YAMLError`, with the line, if it is broken."""
    try:
        loader = LOADER(text)
        node = loader.get_single_node()
    except yaml.YAMLError:  # PyYAML's own parser shows the place
        if found := NOT_PRINTED.search(text):  # but for these
            line = text.count("\n", 0, found.start()) + 1
            raise yaml.YAMLError(f"line {line}: {found[0]!r} is no character of a text") from None
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
    if node is None:
        return None
    _check(node, set(), set())
    try:
        return loader.construct_document(node)
    except (ValueError, TypeError, KeyError):
        _name_wrong_scalar(node)
        raise


def _name_wrong_scalar(node: yaml.Node) -> None:
    """Refuse the first value that its kind cannot hold, such as `!!bool x`, with its line."""
    if isinstance(node, yaml.ScalarNode):
        try:
            yaml.SafeLoader("").construct_object(node)
        except (ValueError, TypeError, KeyError):
            kind, shown = node.tag.removeprefix(TAG), f"{node.value[:SHOWN]!r}"
            raise _refused(node, f"{shown} cannot be read as {kind}") from None
    elif isinstance(node, yaml.CollectionNode):
        pairs = isinstance(node, yaml.MappingNode)
        for each in [inner for pair in node.value for inner in pair] if pairs else node.value:
            _name_wrong_scalar(each)


def _check(node: yaml.Node, seen: set[int], above: set[int]) -> None:
    """Refuse what would be read as something else; `above` are the nodes that hold this one."""
    if id(node) in above:
        raise _refused(node, "this value holds itself")
    if id(node) in seen:  # an alias
        return
    seen.add(id(node))
    if isinstance(node, yaml.ScalarNode):
        _check_scalar(node)
        return
    if node.tag not in KINDS:
        raise _refused(node, f"the tag {node.tag.removeprefix(TAG)} is not allowed")
    above.add(id(node))
    if isinstance(node, yaml.MappingNode):
        _check_keys(node)
        inner = [value for _, value in node.value]
    else:
        inner = node.value
    for each in inner:
        _check(each, seen, above)
    above.discard(id(node))


def _check_keys(node: yaml.MappingNode) -> None:
    first: dict[str, int] = {}
    for key, _ in node.value:
        if key.tag == f"{TAG}merge":
            continue
        if not isinstance(key, yaml.ScalarNode) or key.tag != f"{TAG}str":
            word = key.value[:SHOWN] if isinstance(key, yaml.ScalarNode) else "of several values"
            raise _refused(key, f"the key {word} is not text; write it in quotes")
        _check_scalar(key)
        if key.value in first:
            shown = key.value[:SHOWN]
            raise _refused(key, f"the key '{shown}' is there already, in line {first[key.value]}")
        first[key.value] = key.start_mark.line + 1


def _check_scalar(node: yaml.ScalarNode) -> None:
    shown = f"{node.value[:SHOWN]!r}"
    if node.tag == f"{TAG}timestamp":
        raise _refused(node, f"{shown} would be read as a date; write it in quotes")
    if node.tag not in KINDS:
        raise _refused(node, f"the tag {node.tag.removeprefix(TAG)} is not allowed")
    if node.tag in (f"{TAG}int", f"{TAG}float") and OTHER_BASE.fullmatch(node.value):
        raise _refused(
            node, f"{shown} would be read to another base, for its leading 0 or its colon"
        )
    if NO_TEXT.search(node.value):
        raise _refused(node, f"{shown} holds a character that is no text")


def _refused(node: yaml.Node, why: str) -> yaml.YAMLError:
    return yaml.YAMLError(f"line {node.start_mark.line + 1}: {why}")
