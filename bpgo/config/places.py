"""Where a key stands: messages name the file, of several, and the line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from bpgo.config.library import NAMED
from bpgo.config.overlays import COMMAND_LINE, SMOKE, Files, files_of
from bpgo.config.yaml_files import LOADER
from bpgo.errors import UserError

Source = tuple[str, yaml.Node | None]  # a file's name, and what it holds


def located(
    error: UserError, configfile: Files, scale: str, given: Mapping[str, Any] | None = None
) -> UserError:
    """The error of a configuration, each line with the file, and the line, in which its key stands.

    Messages name the first file, where values are checked that several files have made.
    """
    files = files_of(configfile)
    sources: list[Source] = [(str(file), _read(file)) for file in files]
    if given:
        sources.append((COMMAND_LINE, _node(yaml.safe_dump(dict(given)))))
    names = "|".join(re.escape(name) for name, _ in sources)
    named = rf"{re.escape(str(files[0].parent))}/(?:{'|'.join(NAMED)})/[^/:]+?"
    pattern = re.compile(
        rf"^(?P<file>{names}|{named})"
        r"(?: \(with (?P<by>.+?): (?P<override>overrides\.[^)]+)\))?: (?P<key>[^:]+)"
        r"(?=: (?P<missing>missing;)?)"
    )

    def replaced(found: re.Match[str]) -> str:
        file, key, override = found["file"], found["key"], found["override"]
        own = [source for source in sources[1:] if source[0] == file]
        if file == sources[0][0]:
            own = sources
        elif not own:
            own = [(file, _read(Path(file)))]
        at = (key.rpartition(".")[0] or key) if found["missing"] else key  # where it should be
        place = _place(own, at, scale if own is sources else "full")[1] or file
        if not override:
            return f"{place}: {key}"
        depth, by = _place(sources, f"{override}.{key}", scale)
        if depth > override.count(".") + 1:
            return f"{file} (with {by}: {override}): {key}"
        return f"{place} (with {found['by']}: {override}): {key}"

    lines = str(error).splitlines()
    return UserError("\n".join(pattern.sub(replaced, line) for line in lines))


def _place(sources: list[Source], key: str, scale: str) -> tuple[int, str]:
    """Where a key stands: `file, line 3` of the last source that has most of the way down to it.

    How many keys of the way it has stands before; with 0 the place is empty.
    """
    deepest, place = 0, ""
    starts = ([], [SMOKE]) if scale == "smoke" else ([],)
    for name, node in sources:
        for start in starts:
            found = list(_way(node, [*start, *key.split(".")]))[len(start) :]
            if found and len(found) >= deepest:
                deepest = len(found)
                place = name if name == COMMAND_LINE else f"{name}, line {found[-1]}"
    return deepest, place


def _way(node: yaml.Node | None, keys: list[str]) -> Iterator[int]:
    """The lines of the keys on the way down, as far as it goes."""
    for depth, key in enumerate(keys):
        if isinstance(node, yaml.MappingNode):
            whole = ".".join(keys[depth:])  # a key may hold dots itself
            for at, _ in node.value:
                if at.value == whole:
                    yield from [at.start_mark.line + 1] * (len(keys) - depth)
                    return
            found = [pair for pair in node.value if key in (pair[0].value, f"'{pair[0].value}'")]
        elif isinstance(node, yaml.SequenceNode) and key.isdigit() and int(key) < len(node.value):
            found = [(node.value[int(key)], node.value[int(key)])]
        else:
            return
        if not found:
            return
        at, node = found[-1]
        yield at.start_mark.line + 1


def _read(file: Path) -> yaml.Node | None:
    """What a file holds; None where it cannot be read: what reads it for its values says so."""
    try:
        return _node(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return None


def _node(text: str) -> yaml.Node | None:
    node: yaml.Node | None = LOADER(text).get_single_node()
    return node
