"""Tables as Parquet files whose pages have checksums: a changed bit is found on reading."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from bpgo.errors import UserError
from bpgo.storage.files import atomic_path


def write_table(table: pd.DataFrame, path: Path, **options: Any) -> None:
    """Write `table` without its index, whole or not at all; `options` are pandas'."""
    with atomic_path(path) as temporary:
        table.to_parquet(temporary, index=False, write_page_checksum=True, **options)


def read_table(path: Path, remedy: str, columns: list[str] | None = None) -> pd.DataFrame:
    """Read a table, or some of its columns.

    Raises:
        UserError: if it cannot be read, or not as it was written; ends with `remedy`, such as
            "run `sample` again".
    """
    return read_arrow(path, remedy, columns=columns).to_pandas()


def read_arrow(path: Path, remedy: str, **options: Any) -> pa.Table:
    """The same as an Arrow table; `options` are pyarrow's."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; {remedy}")
    try:
        return pq.read_table(path, page_checksum_verification=True, **options)
    except (OSError, ValueError, KeyError, NotImplementedError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: cannot be read as Parquet: {reason}; {remedy}") from None
