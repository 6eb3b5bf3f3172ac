"""Files and folders appear whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import math
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from bpgo.config.resolve import default_configfile, load
from bpgo.errors import UserError
from bpgo.records import AdvantageResult, PromptBatch, WeightedAdvantage
from bpgo.run.folder import RowLog
from bpgo.run.progress import MetricsLog
from bpgo.steps.saved_samples import save_samples
from bpgo.storage.files import (
    atomic_directory,
    atomic_path,
    read_about,
    read_json,
    repository_root,
    sha256,
    text_digest,
    told,
    write_json,
    write_text,
)


class BreakdownError(Exception):
    pass


def test_new_file_and_folders_above_it(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "table.parquet"
    with atomic_path(path) as temporary:
        assert temporary.suffix == ".parquet"
        assert temporary.parent == path.parent
        temporary.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert [file.name for file in path.parent.iterdir()] == ["table.parquet"]


def test_error_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(BreakdownError), atomic_path(path) as temporary:
        temporary.write_text("half of the n")
        raise BreakdownError
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["file.txt"]


def test_a_block_that_writes_nothing_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), atomic_path(path):
        pass
    assert path.read_text() == "old"


def test_folder_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder"
    for name in ("first", "second"):
        with atomic_directory(path) as temporary:
            (temporary / "deep").mkdir()
            (temporary / "deep" / name).write_text(name)
    assert [file.name for file in (path / "deep").iterdir()] == ["second"]
    assert [file.name for file in path.parent.iterdir()] == ["folder"]


def test_error_keeps_the_old_folder(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    with atomic_directory(path) as temporary:
        (temporary / "file").write_text("old")
    with pytest.raises(BreakdownError), atomic_directory(path) as temporary:
        (temporary / "file").write_text("new")
        raise BreakdownError
    assert (path / "file").read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["folder"]


def test_error_leaves_no_new_folder(tmp_path: Path) -> None:
    with pytest.raises(BreakdownError), atomic_directory(tmp_path / "folder") as temporary:
        (temporary / "file").write_text("new")
        raise BreakdownError
    assert not list(tmp_path.iterdir())


def test_text_and_json(tmp_path: Path) -> None:
    write_text(tmp_path / "text", "σ = 1\n")
    assert (tmp_path / "text").read_text(encoding="utf-8") == "σ = 1\n"
    value = {"b": [1, 2.5, None], "a": {"c": "σ"}}
    write_json(tmp_path / "file.json", value)
    assert read_json(tmp_path / "file.json") == value
    assert read_about(tmp_path / "file.json") == value


@pytest.mark.parametrize("content", [None, b"", b'{"a": ', b"\xff", b"[" * 100_000, b"[1]", b"3"])
def test_a_broken_file_says_nothing_of_its_folder(content: bytes | None, tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    if content is not None:
        file.write_bytes(content)
    assert read_about(file) == {}


def test_json_nested_too_deeply_is_a_value_error(tmp_path: Path) -> None:
    """Whoever reads a file tells a `ValueError` in one line, and nobody a `RecursionError`."""
    (tmp_path / "file.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="nested too deeply"):
        read_json(tmp_path / "file.json")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_json_holds_finite_numbers_only(value: float, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "file.json", {"mean": value})
    assert not list(tmp_path.iterdir())


def test_digests(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    assert sha256(tmp_path / "file") == hashlib.sha256(b"abc").hexdigest()
    assert text_digest("abc") == hashlib.sha256(b"abc").hexdigest()[:16]


def test_root_holds_the_packages() -> None:
    assert (repository_root() / "bpgo" / "storage" / "files.py").is_file()
    assert (repository_root() / "baselines").is_dir()


@pytest.mark.parametrize("whole", [atomic_path, atomic_directory])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_a_disk_that_takes_no_more_is_one_message(whole: Any, number: int, tmp_path: Path) -> None:
    path = tmp_path / "old"
    with atomic_directory(path) as part:
        (part / "kept").write_text("old")
    with pytest.raises(UserError) as caught, whole(path):
        raise OSError(number, os.strerror(number))
    message = str(caught.value)
    for word in (str(path), os.strerror(number), "give the same command again"):
        assert word in message
    assert (path / "kept").read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["old"]


def test_safetensors_and_a_full_disk(tmp_path: Path) -> None:
    """Its own error: it has no errno."""
    wanted = "No space left on device: free some space"
    with pytest.raises(UserError, match=wanted), atomic_path(tmp_path / "model.safetensors"):
        raise SafetensorError("serializing: I/O error: No space left on device (os error 28)")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_every_writer_names_its_file_on_a_full_disk(tmp_path: Path) -> None:
    """Logs, which stay open, and images, which appear one by one."""
    image = tmp_path / "images" / "iteration_000001" / "p_0.png"
    image.parent.mkdir(parents=True)
    image.symlink_to("/dev/full")
    metrics, rows = MetricsLog(tmp_path, 0), RowLog(tmp_path / "rollouts.jsonl", 0)
    for log in (metrics, rows):
        log._file.close()
        log._file = Path("/dev/full").open("a")  # noqa: SIM115
    nothing = AdvantageResult([WeightedAdvantage(1.0, torch.zeros(1, 1))])
    batch = PromptBatch(["p"], ["a circle"], [0.0])
    writers = {
        tmp_path / "metrics.jsonl": lambda: metrics.write({"iteration": 1}),
        tmp_path / "rollouts.jsonl": lambda: rows.write(1, batch, torch.zeros(1, 1), {}, nothing),
        image: lambda: save_samples(
            load(default_configfile()), [torch.rand(1, 3, 24, 24)], [("p", 0)], ["a"], tmp_path, 1
        ),
    }
    for file, write in writers.items():
        wanted = f"{re.escape(str(file))}: cannot be written: No space left on device: free some"
        with pytest.raises(UserError, match=wanted):
            write()


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "file.txt"):
        (tmp_path / "none").read_text()
    elsewhere = PermissionError(errno.EACCES, "Permission denied", "/elsewhere/prompts.txt")
    with pytest.raises(PermissionError), atomic_path(tmp_path / "file.txt"):
        raise elsewhere
    assert told(elsewhere).startswith("/elsewhere/prompts.txt: Permission denied: allow writing")
    with pytest.raises(BreakdownError):
        told(BreakdownError())
