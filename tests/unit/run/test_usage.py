"""What a job took: Snakemake's columns, and numbers of a job that is known."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from snakemake.benchmark import BenchmarkRecord

from bpgo.run.usage import COLUMNS, Spent, Usage
from bpgo.storage.files import repository_root

MEGABYTES = 150
# Half a second of work, and as much memory in a child for as long.
WORK = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; held = bytes({MEGABYTES} << 20); "
    "held = bytearray(held); time.sleep(1.2)"])
while time.process_time() < 0.5:
    pass
child.wait()
"""


def read(path: Path) -> dict[str, str]:
    head, row = [line.split("\t") for line in path.read_text().splitlines()]
    return dict(zip(head, row, strict=True))


def job(place: Path, *command: str) -> tuple[int, Path]:
    path = place / "folder" / "usage.tsv"
    line = [sys.executable, "-S", "-m", "bpgo.run.job", "--benchmark", str(path), *command]
    environment = os.environ | {"PYTHONPATH": str(repository_root())}
    found = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
    return found.returncode, path


def test_columns_are_those_of_snakemake() -> None:
    assert list(COLUMNS) == BenchmarkRecord.get_header()


@pytest.mark.parametrize("wall", [3.14159, 75.0, 3725.0, 90000.0, 200000.0])
def test_a_line_is_written_as_snakemake_writes_it(tmp_path: Path, wall: float) -> None:
    usage = Usage()
    usage.peaks = {"max_rss": 100.0, "max_vms": 300.0, "max_uss": 80.0, "max_pss": 90.0}
    path = tmp_path / "usage.tsv"
    usage.write(str(path), wall, Spent(0, 2.5, 120 * 1024, 2048, 4096))
    record = BenchmarkRecord(
        running_time=wall,
        max_rss=120.0,
        max_vms=300.0,
        max_uss=80.0,
        max_pss=90.0,
        io_in=1.0,
        io_out=2.0,
        cpu_usage=250.0,  # per cent times seconds
        cpu_time=2.5,
    )
    record.data_collected = True
    assert path.read_text().splitlines()[1] == record.to_tsv(False)


def test_a_job_too_short_to_look_at(tmp_path: Path) -> None:
    path = tmp_path / "usage.tsv"
    Usage().write(str(path), 0.1, Spent(0, 0.05, 2048, 0, 0))
    found = read(path)
    assert (found["max_rss"], found["max_pss"], found["mean_load"]) == ("2.00", "NA", "50.00")


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_the_whole_tree_of_processes_counts(tmp_path: Path) -> None:
    code, path = job(tmp_path, sys.executable, "-c", WORK)
    assert code == 0
    found = {name: float(value) for name, value in read(path).items() if name != "h:m:s"}
    assert found["s"] > 1.2
    assert 0.5 <= found["cpu_time"] < 1.5
    assert found["mean_load"] == pytest.approx(100 * found["cpu_time"] / found["s"], rel=0.05)
    for column in ("max_rss", "max_uss", "max_pss"):
        assert MEGABYTES < found[column] < MEGABYTES + 100
    assert found["max_vms"] > found["max_rss"]


@pytest.mark.parametrize("end", ["sys.exit(3)", "os.kill(os.getpid(), 15)"])
def test_a_job_that_fails_leaves_none(tmp_path: Path, end: str) -> None:
    code, path = job(tmp_path, sys.executable, "-c", f"import os, sys; {end}")
    assert code in (3, -15)
    assert not path.exists()


def test_a_command_that_is_not_there(tmp_path: Path) -> None:
    assert job(tmp_path, "no-such-command")[0] == 127
