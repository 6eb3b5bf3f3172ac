"""Tables as Parquet files that say what they hold: what was changed since is found on reading.

Pages have checksums, and the metadata a seal: words for what the table holds
(`bpgo.storage.seals.sealed_of`) and the digest of all columns.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from bpgo.errors import UserError
from bpgo.storage.files import atomic_path
from bpgo.storage.seals import check_of

OF, DIGEST = b"bpgo.of", b"bpgo.sha256"


class UnsealedError(UserError):
    """A table has no seal: an earlier version wrote it, or another program."""


def write_table(table: pd.DataFrame, path: Path, of: str = "", **options: Any) -> None:
    """Write `table` without its index and with a seal, whole or not at all.

    `of`: what it holds (empty: not said); `options` are pyarrow's.
    """
    made = pa.Table.from_pandas(table, preserve_index=False)
    seal = {OF: of.encode(), DIGEST: _digest(made, of).encode()}
    made = made.replace_schema_metadata(seal)  # pandas' own would be read back unchecked
    with atomic_path(path) as temporary:
        pq.write_table(made, temporary, write_page_checksum=True, **options)


def read_table(
    path: Path, remedy: str, columns: list[str] | None = None, of: str = "", sealed: bool = True
) -> pd.DataFrame:
    """Read a table that `write_table` wrote, or some of its columns.

    Args:
        path: of the file.
        remedy: what to do about a file that cannot be taken, such as "run `sample` again".
        columns: which ones to give.
        of: what the table must hold (empty: anything).
        sealed: refuse a table without a seal.

    Raises:
        UserError: if it cannot be read, or not as it was written, holds something else, or lacks a
            column; ends with `remedy`.
        UnsealedError: if it must have a seal and has none.
    """
    found = read_arrow(path, remedy)
    seal = found.schema.metadata or {}
    if DIGEST in seal:
        check_of(path, seal.get(OF, b"").decode(errors="replace"), of, remedy)
    elif sealed:
        raise UnsealedError(
            f"{path}: has no seal: it was changed after it was written, or is of an earlier version"
            f"; {remedy}"
        )
    missing = [name for name in columns or () if name not in found.column_names]
    if missing:
        raise UserError(f"{path}: has no column '{missing[0]}'; {remedy}")
    return (found if columns is None else found.select(columns)).to_pandas()


def read_arrow(path: Path, remedy: str, **options: Any) -> pa.Table:
    """Any table, as Arrow's; its seal is checked if it has one and all columns are read.

    `options` are pyarrow's. Raises `UserError` as `read_table`.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; {remedy}")
    try:
        found = pq.read_table(path, page_checksum_verification=True, **options)
        seal = found.schema.metadata or {}
        of = seal.get(OF, b"").decode()
        changed = (
            DIGEST in seal
            and options.get("columns") is None
            and seal[DIGEST] != _digest(found, of).encode()
        )
    except (OSError, ValueError, KeyError, NotImplementedError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: cannot be read as Parquet: {reason}; {remedy}") from None
    if changed:
        raise UserError(f"{path}: was changed after it was written (by its seal); {remedy}")
    return found


def _digest(table: pa.Table, of: str) -> str:
    """SHA-256 of the columns' names, types and values, however they are stored."""
    found = hashlib.sha256(of.encode())
    for name, column in zip(table.column_names, table.columns, strict=True):
        one = column.combine_chunks()
        if pa.types.is_dictionary(one.type):
            one = one.dictionary_decode()
        absent = np.flatnonzero(one.is_null().to_numpy(zero_copy_only=False))
        if pa.types.is_floating(one.type) or pa.types.is_integer(one.type):
            kind, values = str(one.type), one.fill_null(0).to_numpy(zero_copy_only=False).tobytes()
        elif pa.types.is_string(one.type) or pa.types.is_large_string(one.type):
            kind, coded = "string", one.dictionary_encode()
            words = json.dumps(coded.dictionary.to_pylist()).encode()
            values = words + coded.indices.fill_null(-1).to_numpy(zero_copy_only=False).tobytes()
        else:
            kind, values = "other", json.dumps(one.to_pylist(), default=str).encode()
        for part in (name.encode(), kind.encode(), absent.tobytes(), values):
            found.update(len(part).to_bytes(8, "big") + part)
    return found.hexdigest()
