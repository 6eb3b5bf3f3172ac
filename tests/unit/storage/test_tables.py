"""Stored tables: a changed bit is found when they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bpgo.errors import UserError
from bpgo.storage.tables import UnsealedError, read_table, write_table

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


def test_a_changed_bit_of_the_rest_is_found(tmp_path: Path) -> None:
    """The file's end has no checksums: names, types, numbers of rows, and the seal itself."""
    path = tmp_path / "scores.parquet"
    small = TABLE[:20].assign(cut=False, rank=range(20), weight=np.nan)
    write_table(small, path, "scores of clear/grpo/seed_1")
    whole = path.read_bytes()
    start = len(whole) - int.from_bytes(whole[-8:-4], "little") - 8
    refused = 0
    for place in range(start, len(whole), 3):
        changed = bytearray(whole)
        changed[place] ^= 1 << (place % 8)
        path.write_bytes(changed)
        try:
            found = read_table(path, "run `score` again", of="scores of clear/grpo/seed_1")
        except UserError:
            refused += 1
        else:
            pd.testing.assert_frame_equal(found, small)  # a bit that says nothing
    assert refused > 100


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table[:-1],
        lambda table: table[:0],
        lambda table: table.assign(score=table["score"] + 1e-12),
        lambda table: table.assign(prompt_id=table["prompt_id"][::-1].to_list()),
        lambda table: table.rename(columns={"score": "prior"}),
        lambda table: table.drop(columns="score"),
        lambda table: table,
    ],
)
def test_a_table_that_another_program_wrote_is_refused(change: Any, tmp_path: Path) -> None:
    path = tmp_path / "scores.parquet"
    write_table(TABLE, path)
    change(pd.read_parquet(path)).to_parquet(path, index=False)
    with pytest.raises(UnsealedError, match=r"scores.parquet: has no seal.*; run `score` again"):
        read_table(path, "run `score` again")
    assert len(read_table(path, "", sealed=False)) <= len(TABLE)


def test_anothers_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "scores.parquet"
    write_table(TABLE, path, "scores of clear/grpo/seed_1")
    read_table(path, "", of="scores of clear/grpo/seed_1")
    wanted = "holds the scores of clear/grpo/seed_1, not the scores of clear/bpgo/seed_1; remove it"
    with pytest.raises(UserError, match=wanted):
        read_table(path, "remove it", of="scores of clear/bpgo/seed_1")


def test_missing_values_empty_tables_and_categories(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    table = TABLE[:9].assign(prior=np.nan, text=None, cut=[True, False, None] * 3)
    table["arm"] = pd.Categorical(["grpo", "bpgo", "grpo"] * 3)
    for each in (table, table[:0], pd.DataFrame(columns=["prompt_id", "score"])):
        write_table(each, path)
        found = read_table(path, "")
        assert list(found) == list(each)
        assert found.astype(str).equals(each.astype(str))


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    write_table(TABLE, tmp_path / "scores.parquet")
    with pytest.raises(UserError, match="has no column 'cut'; run `score` again"):
        read_table(tmp_path / "scores.parquet", "run `score` again", ["score", "cut"])
