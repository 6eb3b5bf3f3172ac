"""What a machine says of itself, with programs and files made up."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from bpgo.run import machine

NVIDIA = (
    "0, GPU-a, NVIDIA H100 80GB HBM3, 81559, 580.65.06\n"
    "1, GPU-b, NVIDIA H100 80GB HBM3, 81559, 580.65.06\n"
)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return folder


def program(folder: Path, name: str, output: str = "", code: int = 0) -> None:
    path = folder / name
    path.write_text(f"#!{sys.executable}\nprint({output!r}, end='')\nraise SystemExit({code})\n")
    path.chmod(0o755)


def test_gpus(programs: Path) -> None:
    program(programs, "nvidia-smi", NVIDIA)
    first, second = machine.gpus()
    assert first == second
    assert (first.name, first.driver) == ("NVIDIA H100 80GB HBM3", "580.65.06")
    assert first.gigabytes == pytest.approx(85.5, abs=0.1)  # 81559 MiB


@pytest.mark.parametrize(("visible", "count"), [("1", 1), ("GPU-a,1", 2), ("", 0), ("7", 0)])
def test_gpus_that_a_job_may_see(
    visible: str, count: int, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(programs, "nvidia-smi", NVIDIA)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert len(machine.gpus()) == count


@pytest.mark.parametrize(
    ("output", "code"),
    [
        ("", 0),
        ("NVIDIA-SMI has failed\n", 9),
        ("No devices were found\n", 0),
        ("0, a, b, [N/A], c\n", 0),
    ],
)
def test_a_driver_that_does_not_work(output: str, code: int, programs: Path) -> None:
    program(programs, "nvidia-smi", output, code)
    assert machine.gpus() == []


def test_no_programs(programs: Path) -> None:
    assert not list(programs.iterdir())
    assert machine.gpus() == []
    assert machine.slurm() is None


def test_a_cluster(programs: Path) -> None:
    program(programs, "sbatch")
    program(programs, "sinfo", "cpu|(null)\ngpu|gpu:h100:4\ngpu|(null)\n")
    found = machine.slurm()
    assert found is not None
    assert found.partitions == {"cpu": "", "gpu": "gpu:h100:4"}


def test_a_cluster_that_does_not_answer(programs: Path) -> None:
    program(programs, "sbatch")
    program(programs, "sinfo", code=1)
    found = machine.slurm()
    assert found is not None
    assert found.complaint == "sinfo does not answer"


def test_a_program_that_hangs(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = programs / "nvidia-smi"
    path.write_text(f"#!{sys.executable}\nimport time\ntime.sleep(60)\n")
    path.chmod(0o755)
    monkeypatch.setattr(machine, "PROBE_SECONDS", 0.2)
    assert machine.gpus() == []


@pytest.mark.parametrize(("quota", "expected"), [("150000 100000", 1), ("max 100000", None)])
def test_cores_of_a_container(quota: str, expected: int | None, tmp_path: Path) -> None:
    free = machine.cores(tmp_path / "none")
    (tmp_path / "cpu.max").write_text(quota)
    assert machine.cores(tmp_path) == min(free, expected or free)


def test_memory_of_a_container(tmp_path: Path) -> None:
    whole = machine.memory_bytes(tmp_path / "none")
    assert whole > 0
    (tmp_path / "memory.max").write_text("1000000\n")
    assert machine.memory_bytes(tmp_path) == 1_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.memory_bytes(tmp_path) == whole


@pytest.mark.parametrize(
    ("lines", "built"),
    [
        ("cuda: Optional[str] = '13.0'\nhip: Optional[str] = None\n", "cuda 13.0"),
        ("cuda: Optional[str] = None\nhip: Optional[str] = '6.4'\n", "rocm 6.4"),
        ("cuda: Optional[str] = None\n", "cpu"),
    ],
)
def test_torch_is_read_not_imported(
    lines: str, built: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "torch"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')\n")
    (package / "version.py").write_text(f"__version__ = '2.13.0+x'\ndebug = False\n{lines}")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torch")
    found = machine.torch_build()
    assert found is not None
    assert (found.version, found.built_for) == ("2.13.0+x", built)
    assert found.sees_gpus == (built != "cpu")


def test_this_machine(tmp_path: Path) -> None:
    found = machine.this_machine(tmp_path / "results" / "new", tmp_path)
    assert found.cores >= 1
    assert found.memory > 0
    assert found.disks["results"][1] > 0
    assert not (tmp_path / "results").exists()
    assert found.torch is not None
    assert found.python.count(".") == 2
    assert os.fspath(found.disks["hub cache"][0]) == str(tmp_path)
