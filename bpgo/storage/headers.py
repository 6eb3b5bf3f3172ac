"""What a safetensors file says of itself: names and shapes of its tensors, read without torch."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bpgo.errors import UserError

LONGEST = 100_000_000  # bytes of a header, as safetensors has it
ABOUT = "__metadata__"


@dataclass(frozen=True)
class Header:
    """Shapes by tensor, and the file's own notes."""

    shapes: dict[str, tuple[int, ...]]
    notes: dict[str, str]


def read_header(path: Path) -> Header:
    """The header of a safetensors file, whose length must be what it says.

    Raises:
        UserError: it cannot be read, is another kind of file (a pickle), or was cut.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else LONGEST + 1
            values: Any = json.loads(file.read(length)) if length <= LONGEST else None
        shapes, ends = _tensors(values)
        notes = {str(key): str(value) for key, value in values.get(ABOUT, {}).items()}
        whole = 8 + length + max(ends, default=0)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise UserError(
            f"{path}: is no safetensors file; no other kind is read, as a pickle may carry code"
        ) from None
    if path.stat().st_size != whole:
        raise UserError(
            f"{path}: has {path.stat().st_size} bytes, and {whole} by its header: it was cut or"
            " damaged; copy it again"
        )
    return Header(shapes, notes)


def _tensors(values: Any) -> tuple[dict[str, tuple[int, ...]], list[int]]:
    entries = {name: entry for name, entry in values.items() if name != ABOUT}
    shapes = {name: tuple(int(size) for size in each["shape"]) for name, each in entries.items()}
    return shapes, [int(entry["data_offsets"][1]) for entry in entries.values()]
