"""GPUs are handed out to jobs: each its own, as many as it needs, back when it ends."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bpgo.errors import UserError
from bpgo.run import slots

# A job: says which GPUs it has, and works until its file `go` appears.
JOB = """
import json, os, pathlib, sys, time
me = pathlib.Path(sys.argv[1])
(me / "part").write_text(json.dumps([os.environ.get("CUDA_VISIBLE_DEVICES"), os.getpid()]))
(me / "part").rename(me / "gpus")
while not (me / "go").exists():
    time.sleep(0.02)
"""


class Jobs:
    """Jobs of `python -m bpgo.run.slots` in a place with its own locks."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.started = folder, dict[str, subprocess.Popen[str]]()

    def start(self, name: str, count: int, **environment: str) -> None:
        (self.folder / name).mkdir()
        place = {**os.environ, "TMPDIR": str(self.folder), "CUDA_VISIBLE_DEVICES": "0,1,2,3"}
        place.pop("SLURM_JOB_ID", None)
        command = [sys.executable, "-m", "bpgo.run.slots", str(count)]
        command += [sys.executable, "-c", JOB, str(self.folder / name)]
        self.started[name] = subprocess.Popen(
            command, env=place | environment, stderr=subprocess.PIPE, text=True
        )

    def gpus(self, name: str) -> list[str]:
        """Which GPUs a job has got; waits for it."""
        until = time.monotonic() + 60
        while not (self.folder / name / "gpus").exists():
            assert time.monotonic() < until, f"{name} got no GPU"
            time.sleep(0.02)
        visible, pid = json.loads((self.folder / name / "gpus").read_text())
        assert pid == self.started[name].pid  # the job itself, not a child: signals reach it
        return visible.split(",")

    def waits(self, name: str) -> bool:
        time.sleep(3 * slots.POLL)
        return not (self.folder / name / "gpus").exists()

    def finish(self, name: str) -> None:
        (self.folder / name / "go").touch()
        assert self.started[name].wait(timeout=60) == 0


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    found = Jobs(tmp_path)
    yield found
    for process in found.started.values():
        process.kill()
        process.communicate()


def test_each_job_has_gpus_of_its_own(jobs: Jobs) -> None:
    for name, count in (("a", 1), ("b", 2), ("c", 1)):
        jobs.start(name, count)
    held = [jobs.gpus(name) for name in "abc"]
    assert [len(each) for each in held] == [1, 2, 1]
    assert sorted(gpu for each in held for gpu in each) == ["0", "1", "2", "3"]
    jobs.start("d", 2)
    assert jobs.waits("d")
    jobs.finish("b")
    assert jobs.gpus("d") == held[1]


def test_a_killed_job_leaves_its_gpus(jobs: Jobs) -> None:
    jobs.start("a", 4)
    assert jobs.gpus("a") == ["0", "1", "2", "3"]
    jobs.start("b", 3)
    assert jobs.waits("b")
    jobs.started["a"].send_signal(signal.SIGKILL)
    assert len(jobs.gpus("b")) == 3


def test_a_job_for_several_gpus_is_not_overtaken(jobs: Jobs) -> None:
    for name in "ab":
        jobs.start(name, 2)
        jobs.gpus(name)
    jobs.start("large", 4)
    assert jobs.waits("large")
    jobs.start("small", 1)
    jobs.finish("a")
    assert jobs.waits("small")
    jobs.finish("b")
    assert len(jobs.gpus("large")) == 4
    jobs.finish("large")
    jobs.gpus("small")


def test_a_batch_job_uses_what_it_was_given(jobs: Jobs) -> None:
    """Two jobs of Slurm on one node may both see a GPU 0: their own."""
    for name in "ab":
        jobs.start(name, 1, SLURM_JOB_ID="7", CUDA_VISIBLE_DEVICES="0")
    assert jobs.gpus("a") == jobs.gpus("b") == ["0"]


def test_jobs_inside_one_allocation_share_it(jobs: Jobs) -> None:
    """Snakemake may itself run in a batch job with several GPUs."""
    for name in "ab":
        jobs.start(name, 1, SLURM_JOB_ID="7", CUDA_VISIBLE_DEVICES="2,3")
    assert sorted(jobs.gpus("a") + jobs.gpus("b")) == ["2", "3"]
    jobs.start("other", 1, SLURM_JOB_ID="8", CUDA_VISIBLE_DEVICES="2,3")
    jobs.gpus("other")  # another allocation: other GPUs, though they have the same names


def test_more_gpus_than_there_are(jobs: Jobs) -> None:
    jobs.start("a", 5)
    _, said = jobs.started["a"].communicate(timeout=60)
    assert jobs.started["a"].returncode == 2
    assert "machine.gpus: a job needs 5 GPUs, but only 4 can be used here (0, 1, 2, 3)" in said
    assert "Traceback" not in said


class ReplacedError(Exception):
    """Where the process would become its command."""


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    def replaced(*arguments: Any) -> None:
        raise ReplacedError(*arguments)

    monkeypatch.setattr(os, "execvp", replaced)
    monkeypatch.setattr(slots, "lock_folder", lambda: tmp_path / "locks")
    for name in ("SLURM_JOB_ID", "CUDA_VISIBLE_DEVICES", *slots.LAUNCHER):
        # Set first, so that what `main` sets is taken away again.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return monkeypatch


@pytest.mark.parametrize("visible", ["", "-1"])
def test_without_gpus_nothing_is_taken(
    visible: str, environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environment.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(ReplacedError):
        slots.main(["2", "job"])
    assert os.environ["CUDA_VISIBLE_DEVICES"] == visible
    assert not (tmp_path / "locks").exists()


def test_several_processes_have_time_to_save(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    environment.setenv("PET_SHUTDOWN_TIMEOUT", "77")
    with pytest.raises(ReplacedError):
        slots.main(["2", "job"])
    assert os.environ["PET_SHUTDOWN_TIMEOUT"] == "77"  # the user's own
    assert "SIGUSR1" in os.environ["PET_SIGNALS_TO_HANDLE"]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1"


def test_a_users_settings_of_accelerate_do_not_reach_the_processes(
    environment: pytest.MonkeyPatch,
) -> None:
    environment.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    environment.setenv("ACCELERATE_USE_CPU", "true")
    environment.setenv("FSDP_VERSION", "2")
    with pytest.raises(ReplacedError):
        slots.main(["1", "job"])
    assert os.environ["ACCELERATE_USE_CPU"] == "true"  # one process asks nothing of accelerate
    environment.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with pytest.raises(ReplacedError):
        slots.main(["2", "job"])
    assert not {"ACCELERATE_USE_CPU", "FSDP_VERSION"} & set(os.environ)


def test_gpus_are_found_by_nvidia_smi(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\nprintf '0\\n1\\n'\n")
    program.chmod(0o755)
    environment.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert slots.visible_gpus() == ["0", "1"]
    program.write_text("#!/bin/sh\nexit 9\n")
    assert slots.visible_gpus() == []


def test_slots_are_given_back_at_the_end_of_the_block(tmp_path: Path) -> None:
    with slots.taken(2, ["0", "1"], tmp_path) as own:
        assert own == ["0", "1"]
        with (tmp_path / "gpu_0.lock").open("w") as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with slots.taken(1, ["0", "1"], tmp_path) as own:
        assert own == ["0"]
    with pytest.raises(UserError, match="needs 3 GPUs"), slots.taken(3, ["0"], tmp_path):
        pass


def test_a_file_system_without_locks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slots would look taken for ever."""

    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(UserError) as caught, slots.taken(1, ["0", "1"], tmp_path / "locks"):
        pass
    assert str(caught.value) == (
        f"{tmp_path / 'locks' / 'turn.lock'} cannot be locked (Function not implemented), so two"
        " jobs could take one GPU: set TMPDIR to a folder on a file system with flock, such as one"
        " of this machine's own"
    )
