"""Where there can be no server, a job starts by itself and says why in one line."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from warm_jobs import Run

from bpgo.run.warm import call, folder

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the server needs Linux")
NO_WARM_START = "no warm start, the job imports all by itself: "


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    found = Run(tmp_path)
    yield found
    found.close()


def spoil_missing(run: Run) -> None:
    shutil.rmtree(run.folder)


def spoil_open_to_all(run: Run) -> None:
    run.folder.chmod(0o755)


def spoil_of_another(run: Run) -> None:
    os.chown(run.folder, 65534, -1)


def spoil_not_writable(run: Run) -> None:
    """A folder in which nothing can be made, for root neither."""
    run.variable = run.variable.replace(str(run.folder), "/proc/self/task")


def spoil_variable(run: Run) -> None:
    run.variable = "on"


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (spoil_missing, "No such file or directory"),
        (spoil_open_to_all, "is not this user's alone"),
        (spoil_not_writable, "is not this user's alone"),
        (spoil_variable, "BPGO_WARM is 'on'"),
        pytest.param(
            spoil_of_another,
            "is not this user's alone",
            marks=pytest.mark.skipif(os.getuid() != 0, reason="only root gives a folder away"),
        ),
    ],
)
def test_without_a_usable_folder_the_job_starts_by_itself(
    run: Run, spoil: Callable[[Run], None], why: str
) -> None:
    spoil(run)
    code, output, errors = run.job("schema")
    assert code == 0
    assert output.startswith("{")
    assert errors.startswith(NO_WARM_START)
    assert why in errors
    assert errors.count("\n") == 1
    assert not run.servers()


def test_a_full_or_read_only_folder_of_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/proc/self/task")
    monkeypatch.delenv(folder.VARIABLE, raising=False)
    with pytest.raises(folder.ColdError, match="no folder for it can be made"):
        folder.open_folder([])
    assert folder.VARIABLE not in os.environ


def test_elsewhere_nothing_is_said(run: Run) -> None:
    """Outside a workflow, and on another machine of a cluster."""
    process, started, _, rest = run.variable.split(":", 3)
    for value in ("", f"{process}:{started}:another-host:{rest}"):
        code, _, errors = run.job("schema", environment={folder.VARIABLE: value})
        assert (code, errors) == (0, "")
    assert not run.servers()


def test_a_folder_with_a_path_too_long_for_a_socket(tmp_path: Path) -> None:
    long = tmp_path / ("long" * 40)
    long.mkdir()
    run = Run(tmp_path, TMPDIR=str(long))
    try:
        assert run.folder.is_relative_to(long)
        assert run.job("schema")[::2] == (0, "")
        assert run.servers()
    finally:
        run.close()


def test_a_server_that_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    monkeypatch.setenv(folder.VARIABLE, run.variable)
    monkeypatch.setattr(call, "PATIENCE", 0.2)
    workflow = folder.Workflow.of_this_job()
    assert workflow is not None
    address = f"/proc/self/fd/{workflow.enter()}/{folder.name_of_server()}"
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(address)
        silent.listen()
        with pytest.raises(folder.ColdError, match="did not answer within"):
            call.WarmJob(["bpgo", "schema"], workflow)
