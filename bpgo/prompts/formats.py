"""Rows of a prompt file: text, ambiguity and where each stands. One reader per format."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from bpgo.errors import UserError

Format = Literal["txt", "jsonl", "json", "tsv", "csv", "parquet"]
FORMATS: tuple[Format, ...] = get_args(Format)


@dataclass(frozen=True)
class Row:
    """One row, spaces at its ends taken off; an empty `text` means an empty row.

    `number` counts from 1: the line of a text file (the first one, if a row spans several), else
    the entry. `unit` says which.
    """

    number: int
    text: str
    ambiguity: float | None
    unit: Literal["line", "entry"]
    first_frame: str | None = None  # the path of an image, as written


def format_of(path: str) -> Format:
    """The format that a file's name ends in; `UserError` if it is none of `FORMATS`."""
    suffix = Path(path).suffix.lstrip(".").lower()
    for known in FORMATS:
        if suffix == known:
            return known
    raise UserError(
        f"format: the name '{path}' does not say it; give `format`: one of {', '.join(FORMATS)}"
    )


def read_rows(
    path: Path,
    form: Format,
    column: str,
    ambiguity_column: str | None = None,
    first_frame_column: str | None = None,
) -> list[Row]:
    """All rows of a prompt file, empty ones too.

    `column`, `ambiguity_column` and `first_frame_column` name fields; a `txt` file has none, and a
    `json` file may be a list of texts, which has none either.

    Raises:
        UserError: naming the file, and the line or entry, of what cannot be read: no UTF-8, no
            JSON, a missing column, a text that is not text, an ambiguity outside 0 to 1.
    """
    columns = [name for name in (column, ambiguity_column, first_frame_column) if name is not None]
    if form == "txt":
        if len(columns) > 1:
            raise UserError(f"{path}: a txt file has no column '{columns[1]}'")
        return [Row(number, line, None, "line") for number, line in _lines(path)]
    entries = {
        "jsonl": lambda: _jsonl(path),
        "json": lambda: _json(path),
        "tsv": lambda: _separated(path, delimiter="\t", quoting=csv.QUOTE_NONE),
        "csv": lambda: _separated(path, strict=True),
        "parquet": lambda: _parquet(path, columns),
    }[form]()
    unit: Literal["line", "entry"] = "entry" if form in ("json", "parquet") else "line"
    rows = []
    for number, entry in entries:
        try:
            text, ambiguity = _fields(entry, columns, column, ambiguity_column)
            frame = _first_frame(entry, first_frame_column)
            rows.append(Row(number, text, ambiguity, unit, frame))
        except ValueError as error:
            raise UserError(f"{path}, {unit} {number}: {error}") from None
    return rows


def _fields(
    entry: Any, columns: list[str], column: str, ambiguity_column: str | None
) -> tuple[str, float | None]:
    """Text and ambiguity of one entry; `ValueError` says what is wrong."""
    if entry is None:  # an empty line
        return "", None
    if isinstance(entry, str) and len(columns) == 1:
        _check_characters(entry, "text")
        return entry.strip(), None
    if not isinstance(entry, dict):
        raise ValueError(f"needs an object with '{column}'")
    for name in columns:
        if name not in entry:
            raise ValueError(f"has no column '{name}'. It has: {', '.join(map(str, entry))}")
    text = entry[column]
    if text is not None and not isinstance(text, str):
        raise ValueError(f"'{column}' is not text: {text!r}")
    _check_characters(text or "", column)
    ambiguity = None if ambiguity_column is None else _ambiguity(entry[ambiguity_column])
    return (text or "").strip(), ambiguity


def _check_characters(text: str, column: str) -> None:
    """JSON can hold half a character (an emoji cut in two), which no UTF-8 file can."""
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError(f"'{column}' holds half a character: {text[:80]!a}")


def _first_frame(entry: Any, column: str | None) -> str | None:
    """The image's path; `ValueError` where a row that has text has none."""
    if column is None or entry is None:
        return None
    value = entry[column]
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"'{column}' is not the path of an image: {value!r}")
    return value.strip()


def _ambiguity(value: Any) -> float | None:
    if value is None or value == "":
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = -1.0
    if isinstance(value, bool) or not 0 <= number <= 1:
        raise ValueError(f"ambiguity {value!r} is not a number from 0 to 1")
    return number


def _text(path: Path) -> str:
    """The file's text; `UserError` names the first line that is not UTF-8."""
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")  # editors on Windows put a mark in front
    except UnicodeDecodeError as error:
        number = content[: error.start].count(b"\n") + 1
        raise UserError(
            f"{path}, line {number}: is not UTF-8 text; save the file as UTF-8"
        ) from None


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines and their numbers; only a newline ends a line, since prompts hold other marks."""
    lines = _text(path).split("\n")
    if lines[-1] == "":
        lines.pop()  # the file's end
    for number, line in enumerate(lines, start=1):
        yield number, line.strip()


def _jsonl(path: Path) -> Iterator[tuple[int, Any]]:
    for number, line in _lines(path):
        try:
            yield number, json.loads(line) if line else None
        except json.JSONDecodeError as error:
            raise UserError(f"{path}, line {number}: is not JSON: {error.msg}") from None


def _json(path: Path) -> Iterator[tuple[int, Any]]:
    try:
        entries = json.loads(_text(path))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {error.lineno}: is not JSON: {error.msg}") from None
    if not isinstance(entries, list):
        raise UserError(f"{path}: must hold a list of prompts")
    yield from enumerate(entries, start=1)


def _separated(path: Path, **dialect: Any) -> Iterator[tuple[int, Any]]:
    """Rows below a header. In a tsv file quotation marks are part of the text."""
    reader = csv.reader(io.StringIO(_text(path), newline=""), **dialect)
    try:
        header = [name.strip() for name in next(reader, [])]
        if twice := [name for name in header if header.count(name) > 1]:
            raise UserError(f"{path}, line 1: names the column '{twice[0]}' twice; rename one")
        start = reader.line_num + 1
        for values in reader:
            if len(values) > len(header):
                raise UserError(
                    f"{path}, line {start}: has {len(values)} fields, but the header names"
                    f" {len(header)}; a text with the separator in it needs quotation marks (csv)"
                    " or another format"
                )
            yield start, dict(zip(header, values, strict=False)) if any(values) else None
            start = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: cannot be read: {error}") from None


def _parquet(path: Path, wanted: list[str]) -> Iterator[tuple[int, Any]]:
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            known = file.schema_arrow.names
            missing = [name for name in wanted if name not in known]
            if missing:
                raise UserError(f"{path}: has no column '{missing[0]}'. It has: {', '.join(known)}")
            entries = file.read(columns=wanted).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path}: cannot be read as Parquet: {_one_line(error)}") from None
    yield from enumerate(entries, start=1)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
