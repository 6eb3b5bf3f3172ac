"""docs/columns.md has every column of every Parquet file, and no others."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from documented_columns import check_all, documented, entry_of, undocumented

from bpgo.analysis import COLLECTED, STATISTICS
from bpgo.storage.files import repository_root

REFERENCE = repository_root() / "results" / "reference"


def test_columns_of_made_up_runs(root: Path, statistics: Path) -> None:
    found = {name: set(pq.read_schema(statistics / f"{name}.parquet").names) for name in STATISTICS}
    assert check_all(root) > len(STATISTICS)
    for name, columns in found.items():
        assert columns == set(documented()[f"statistics/{name}.parquet"]), name
        assert columns == set(STATISTICS[name]), name


@pytest.mark.parametrize("part", [".", "second_seeds", "scenes_t2v", "scenes_i2v"])
def test_columns_of_published_scores(part: str) -> None:
    root = REFERENCE / part
    for name in COLLECTED:
        if (file := root / "collected" / f"{name}.parquet").is_file():
            assert not undocumented(file, root)


def test_every_collected_metric_has_its_meaning() -> None:
    """The joined file's `{metric}` leads to the columns of single runs."""
    [entry] = [name for name in documented() if name.endswith("/metrics.parquet") and "{" in name]
    names = documented()[entry]
    metrics = set(pq.read_schema(REFERENCE / "collected" / "metrics.parquet").names)
    plain = {name for name in names if "{" not in name}
    left = metrics - plain - {"experiment", "arm", "seed"}
    assert {name.rstrip("0123456789") for name in left} <= {
        "first_log_ratio_mean_",
        "first_log_ratio_max_",
    }


def test_an_unknown_file_or_column_is_found(tmp_path: Path) -> None:
    file = tmp_path / "statistics" / "final.parquet"
    file.parent.mkdir()
    pd.DataFrame({"arm": ["grpo"], "surprise": [1.0]}).to_parquet(file)
    assert undocumented(file, tmp_path) == ["surprise"]
    with pytest.raises(AssertionError, match=r"describe them in docs/columns.md.*surprise"):
        check_all(tmp_path)
    file.rename(tmp_path / "other.parquet")
    with pytest.raises(KeyError, match=r"other.parquet is not in"):
        check_all(tmp_path)


def test_the_nearest_entry_is_taken() -> None:
    assert entry_of("samples/base/seed_3/index.parquet") == "samples/base/seed_{seed}/index.parquet"
    assert entry_of("samples/clear/grpo/seed_3/index.parquet").startswith("samples/{experiment}/")
