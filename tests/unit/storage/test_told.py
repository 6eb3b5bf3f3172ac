"""What ends a command is told in one line, or is a fault of ours and keeps its traceback."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch

from bpgo.errors import UserError, reading
from bpgo.storage.files import told


def no_memory() -> None:
    torch.zeros(2**50)


def no_number() -> None:
    [0] * 2**60


@pytest.mark.parametrize("fill", [no_memory, no_number])
def test_a_full_memory(fill: object) -> None:
    with pytest.raises((RuntimeError, MemoryError)) as caught:
        fill()  # type: ignore[operator]
    message = told(caught.value)
    assert message.startswith("the memory is full: lower what is held at once")
    assert "rollout.batch_size" in message
    assert len(message.splitlines()) == 1
    assert len(message) < 700


def test_a_full_disk_is_named_with_its_file() -> None:
    error = OSError(errno.ENOSPC, "No space left on device", "results/x.parquet")
    assert told(error).startswith("results/x.parquet: No space left on device: free some space")


def test_a_folder_in_the_place_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError) as caught:
        tmp_path.read_text()
    assert told(caught.value) == f"{tmp_path}: Is a directory"
    with pytest.raises(FileNotFoundError) as lost:
        (tmp_path / "x").read_text()
    assert told(lost.value) == f"{tmp_path / 'x'}: No such file or directory"


def test_a_mistake_is_its_message() -> None:
    assert told(UserError("mine.yaml: x: unknown key")) == "mine.yaml: x: unknown key"


def test_a_fault_of_ours_is_raised_again() -> None:
    with pytest.raises(RuntimeError, match="shapes differ"):
        told(RuntimeError("shapes differ"))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (KeyError("added_tokens"), "KeyError: 'added_tokens'"),
        (Exception("data did not\nmatch"), "data did not match"),
        (ValueError("x" * 1000), f"{'x' * 500}..."),
        (RuntimeError(), "RuntimeError"),
        (RecursionError("maximum depth"), "maximum depth"),
    ],
)
def test_what_a_library_raises_over_a_file(error: Exception, reason: str) -> None:
    with pytest.raises(UserError) as caught, reading("a/vae: cannot be loaded"):
        raise error
    assert str(caught.value) == f"a/vae: cannot be loaded: {reason}"


@pytest.mark.parametrize("error", [UserError("named"), MemoryError(), KeyboardInterrupt()])
def test_what_is_told_elsewhere_goes_through(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, reading("a/vae: cannot be loaded"):
        raise error
    assert caught.value is error
