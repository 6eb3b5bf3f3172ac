"""Stored tables: a changed bit is found when they are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bpgo.errors import UserError
from bpgo.storage.tables import read_table, write_table

NUMBERS = np.random.default_rng(0).normal(size=2000)
TABLE = pd.DataFrame({"prompt_id": [f"p{n % 50}" for n in range(2000)], "score": NUMBERS})


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "scores.parquet"
    write_table(TABLE, path)
    pd.testing.assert_frame_equal(read_table(path, "run it again"), TABLE)
    pd.testing.assert_frame_equal(read_table(path, "", ["score"]), TABLE[["score"]])


def test_a_changed_bit_of_the_data_is_found(tmp_path: Path) -> None:
    """Anywhere in the pages, which are all but the last part of the file."""
    path = tmp_path / "scores.parquet"
    write_table(TABLE, path)
    whole = path.read_bytes()
    pages = len(whole) - int.from_bytes(whole[-8:-4], "little") - 8
    places = np.random.default_rng(1).integers(4, pages, size=60)
    refusals = []
    for place, bit in zip(places, np.arange(60) % 8, strict=True):
        changed = bytearray(whole)
        changed[place] ^= 1 << bit
        path.write_bytes(changed)
        try:
            found = read_table(path, "run `score` again")
        except UserError as error:
            refusals.append(str(error))
        else:
            pd.testing.assert_frame_equal(found, TABLE)  # a bit of a page's head that says nothing
    assert len(refusals) >= 55
    assert all(str(path) in text and "run `score` again" in text for text in refusals)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none.parquet: no such file; run `score` again"):
        read_table(tmp_path / "none.parquet", "run `score` again")
