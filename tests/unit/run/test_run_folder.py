"""A run's folder: one process at a time, and nothing half written stays."""

from __future__ import annotations

import errno
import fcntl
from pathlib import Path
from typing import Any

import pytest

from bpgo.errors import UserError
from bpgo.run.folder import lock
from bpgo.storage.files import atomic_directory, atomic_path


class KilledError(BaseException):
    """As SIGKILL, nothing is tidied up after it."""


def killed_while_writing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave a half-written file and folder."""
    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", lambda *_, **__: None)
        patch.setattr(Path, "unlink", lambda *_, **__: None)
        with pytest.raises(KilledError), atomic_directory(folder / "policy") as part:
            (part / "model.safetensors").write_bytes(b"half")
            raise KilledError
        with pytest.raises(KilledError), atomic_path(folder / "metrics.parquet") as part:
            part.write_bytes(b"half")
            raise KilledError
    assert len(list(folder.iterdir())) == 2


def test_what_a_killed_run_left_half_written_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = [tmp_path, tmp_path / "state", tmp_path / "snapshots"]
    for place in places:
        place.mkdir(exist_ok=True)
    for place in reversed(places[1:]):
        killed_while_writing(place, monkeypatch)
    (tmp_path / ".tmp").mkdir()
    (tmp_path / "part.of.mine").write_text("kept")
    (tmp_path / ".my.part").write_text("kept")
    with lock(tmp_path):
        assert [list(place.iterdir()) for place in places[1:]] == [[], []]
    kept = {"state", "snapshots", ".tmp", "part.of.mine", ".my.part", ".lock"}
    assert {file.name for file in tmp_path.iterdir()} == kept


def test_a_file_system_without_locks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with (
        pytest.raises(UserError, match=r"cannot be locked \(Function not implemented\)"),
        lock(tmp_path),
    ):
        pass
