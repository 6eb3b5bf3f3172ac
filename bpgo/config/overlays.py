"""Configuration files laid over each other, as `--configfile a.yaml b.yaml` says.

Mappings merge, everything else is replaced: a list too. Two words take something away:

- `null` takes away the mapping that is there: an experiment, a sweep, a block. Of anything else it
  is the value, and so below `overrides.KIND.NAME`, where what the file says is meant.
- `replace: true` in a mapping: nothing of the mapping that is there stays.

What is taken away is taken out of `smoke` too, and so is what a smaller run compared of a list that
is replaced: the arms of an experiment, the values of a sweep (`COMPARED`). Below `smoke` both words
are kept for what it is laid over itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from bpgo.config.library import merge
from bpgo.config.yaml_files import read_yaml
from bpgo.errors import UserError, shown
from bpgo.storage.files import write_text

REPLACE, SMOKE = "replace", "smoke"
# Lists of what is compared: where a file replaces one, a smoke run compares what that file lists.
COMPARED = (("experiments", "arms"), ("sweeps", "values"))
COMMAND_LINE = "--config"  # the file, so to speak, of what Snakemake's command line says
Files = Path | Sequence[Path]  # a configuration: its file, or that with those laid over it
Way = tuple[str, ...]  # the keys on the way down


def files_of(configfile: Files) -> list[Path]:
    """The files of a configuration as a list."""
    return [configfile] if isinstance(configfile, (str, Path)) else list(configfile)


def read_files(configfile: Files, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The values of a configuration; `given` (from the command line) is laid over its files.

    Raises:
        UserError: a file that is missing or broken, or a `replace` that cannot act.
    """
    first, *others = files_of(configfile)
    values = read_yaml(first)
    for file in others:
        values = lay_over(values, read_yaml(file), str(file))
    return lay_over(values, _all_typed(given or {}), COMMAND_LINE)


def save_given(given: Mapping[str, Any], path: Path) -> None:
    """Write what the command line says as a file that can be laid over others."""
    text = yaml.safe_dump(_all_typed(given), sort_keys=False, allow_unicode=True)
    write_text(
        path, f"# What {COMMAND_LINE} said, for jobs that read configuration files.\n" + text
    )


def _all_typed(given: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _typed(value) for key, value in given.items()}


def _typed(value: Any) -> Any:
    """A value of the command line; Snakemake leaves numbers inside of a mapping as text."""
    if isinstance(value, Mapping):
        return {str(key): _scalar(inner) for key, inner in value.items()}
    return [_scalar(inner) for inner in value] if isinstance(value, list) else value


def _scalar(value: Any) -> Any:
    if not isinstance(value, str):
        return _typed(value)
    try:
        read = yaml.safe_load(value)
    except (yaml.YAMLError, ValueError):
        return value
    return read if read is None or isinstance(read, (bool, int, float)) else value


def lay_over(values: dict[str, Any], change: dict[str, Any], file: str) -> dict[str, Any]:
    """`change`, which `file` holds, over `values`.

    Raises:
        UserError: for a `replace` that is not true, or where there is nothing to replace; for an
            empty mapping over one that holds something, which would change nothing.
    """
    gone: list[Way] = []
    said = _said(values, change, (), gone, file)
    for way in gone:
        values = _without(values, way)
        if way[0] != SMOKE:
            values = _without(values, (SMOKE, *way))
    return merge(values, said)


def _said(
    old: dict[str, Any], change: dict[str, Any], way: Way, gone: list[Way], file: str
) -> dict[str, Any]:
    """`change` without the words that take away; `gone` gets what they do."""
    said: dict[str, Any] = {}
    for key, value in change.items():
        here, before = (*way, str(key)), old.get(key)
        kept = _in_smoke(here)
        if value is None and isinstance(before, dict) and not _in_a_file(here):
            gone.append(here)
            if not kept:
                continue
        elif len(here) == 3 and (here[0], here[2]) in COMPARED:
            gone.append(here)
        elif isinstance(value, dict):
            if REPLACE in value:
                _check_replace(value[REPLACE], before, here, kept, file)
                gone.append(here)
                before = None
            elif not value and isinstance(before, dict) and before:
                raise UserError(
                    f"{file}: {'.'.join(here)}: is empty, which changes nothing: leave it out, or"
                    " take away what is there by null"
                )
            said[key] = _said(before if isinstance(before, dict) else {}, value, here, gone, file)
            continue
        elif key == REPLACE and way and not _in_smoke(way):
            continue
        said[key] = value
    return said


def _check_replace(word: Any, before: Any, way: Way, kept: bool, file: str) -> None:
    key = ".".join((*way, REPLACE))
    if word is not True:
        raise UserError(f"{file}: {key}: {shown(word)} is not allowed: it must be true")
    if not isinstance(before, dict) and not kept:
        raise UserError(
            f"{file}: {key}: there is no mapping '{'.'.join(way)}' in the files before to replace"
        )


def _in_smoke(way: Way) -> bool:
    """Whether it is below `smoke`, a change of what is laid over other values later."""
    return way[0] == SMOKE and len(way) > 1


def _in_a_file(way: Way) -> bool:
    """Whether it is below `overrides.KIND.NAME`, a change of a named file."""
    inner = way[1:] if way[0] == SMOKE else way
    return len(inner) > 3 and inner[0] == "overrides"


def _without(values: dict[str, Any], way: Way) -> dict[str, Any]:
    """`values` without what stands where the keys lead, if anything does.

    Of `smoke` no mapping stays that holds nothing: laid over others, it would be refused.
    """
    first, *rest = way
    if first not in values:
        return values
    if not rest:
        return {key: value for key, value in values.items() if key != first}
    inner = values[first]
    if not isinstance(inner, dict):
        return values
    kept = _without(inner, tuple(rest))
    if first == SMOKE:
        kept = _filled(kept)
    return {**values, first: kept}


def _filled(values: dict[str, Any]) -> dict[str, Any]:
    """`values` without mappings that hold nothing, at any depth."""
    found = {key: _filled(v) if isinstance(v, dict) else v for key, v in values.items()}
    return {key: value for key, value in found.items() if value != {}}
