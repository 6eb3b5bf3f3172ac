"""`python -m bpgo schema`: print a schema, write it, or make all files anew."""

from __future__ import annotations

from pathlib import Path

from bpgo.errors import UserError
from bpgo.storage.files import repository_root, write_text
from bpgo.tools.schema.files import files, schema_text
from bpgo.tools.schema.page import PAGE, page


def schema(kind: str | None, output: Path | None, everything: bool) -> str:
    """What to print: a schema, unless it is written to `output`, or the paths of all files.

    Raises:
        UserError: for an unknown kind, or one beside `everything`.
    """
    if everything:
        if kind is not None or output is not None:
            raise UserError("--all: is not allowed with --of or --output: it writes every file")
        return "".join(f"{path}\n" for path in write_all(repository_root()))
    text = schema_text(kind or "config")
    if output is None:
        return text
    write_text(output, text)
    return ""


def write_all(root: Path) -> list[Path]:
    """Make the clone's schemas and the page of all keys anew; returns their paths in the clone."""
    made = {**files(root / "config"), PAGE: page(root / "config")}
    for path, text in made.items():
        write_text(root / path, text)
    return list(made)
