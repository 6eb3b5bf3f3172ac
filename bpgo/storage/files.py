"""Files that appear whole or not at all, and their digests."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bpgo.errors import UserError, shortened

PART = re.compile(r"\..+\.\d+\.part(\.\w+)?")  # the names of what is not whole yet


# What a disk can refuse, and what is needed then.
REMEDIES = {
    errno.ENOSPC: "free some space there, or put the results on another disk",
    errno.EDQUOT: "free some of your quota, or put the results on another disk",
    errno.EROFS: "make the file system writable, or put the results elsewhere",
    errno.EACCES: "allow writing there, or put the results elsewhere",
    errno.EPERM: "allow writing there, or put the results elsewhere",
    errno.EIO: "the disk fails; put the results on another one",
    errno.EFBIG: "raise the limit of file sizes (ulimit -f), or the file system's",
}


NOT_AS_MEANT = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError)
# What torch says of memory that it cannot have.
MEMORY_SIGNS = ("can't allocate memory", "not enough memory", "out of memory")


def repository_root() -> Path:
    """The folder that holds the packages `bpgo` and `baselines` (the clone's root)."""
    return Path(__file__).resolve().parents[2]


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` when the block ends well.

    The file is flushed to disk before the rename, so a crash leaves the old file or the new one,
    never a part. On an error the temporary file is removed.
    """
    path = Path(path)
    # The suffix stays last: writers such as pandas and PIL choose the format by it.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    with disk_explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            _flush(temporary)
            temporary.replace(path)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        _flush(path.parent)


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Like `atomic_path` for a folder; an existing folder at `path` is replaced."""
    path = Path(path)
    with _folder_beside(path) as temporary:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                _flush(file)
        if path.exists():
            shutil.rmtree(path)
        temporary.replace(path)


@contextmanager
def atomic_files(index: Path) -> Iterator[Path]:
    """Yield a temporary folder; its files go beside `index` when the block ends well, it the last.

    Where there is an index, the files that it lists are whole. What else lies there stays.
    """
    index = Path(index)
    with _folder_beside(index) as temporary:
        yield temporary
        files = sorted(temporary.iterdir(), key=lambda file: file.name == index.name)
        for file in files:
            _flush(file)
        index.unlink(missing_ok=True)
        for file in files:
            file.replace(index.with_name(file.name))


@contextmanager
def _folder_beside(path: Path) -> Iterator[Path]:
    """A temporary folder for what becomes `path`, removed at the end whatever happens."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    with disk_explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        try:
            yield temporary
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        _flush(path.parent)


@contextmanager
def disk_explained(path: Path) -> Iterator[None]:
    """Inside, a disk that takes no more is one message; safetensors has its own error for it."""
    try:
        yield
    except Exception as error:
        place = getattr(error, "filename", None) or path
        reason = _disk_problem(error)
        if reason is None or not str(place).startswith(str(path.parent)):
            raise
        raise UserError(f"{path}: cannot be written: {reason}") from None


def told(error: Exception) -> str:
    """The message of a user's mistake, of a disk that is full, closed or broken, of full memory.

    So is that of a folder in the place of a file, and the other way round, or of nothing there.

    Any other error is raised again.
    """
    if isinstance(error, UserError):
        return str(error)
    if (reason := _disk_problem(error)) is not None:
        return f"{getattr(error, 'filename', None) or 'a file'}: {reason}"
    if isinstance(error, NOT_AS_MEANT) and error.filename:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, MemoryError) or any(sign in str(error) for sign in MEMORY_SIGNS):
        return (
            "the memory is full: lower what is held at once (rollout.group_size,"
            " rollout.batch_size, evaluation.batch_size, the model's resolution and prompt_tokens),"
            " and give the same command again. Finished work is kept."
            f" ({shortened(error or 'out of memory')})"
        )
    raise error


def _disk_problem(error: Exception) -> str | None:
    """What is wrong with the disk, and what is needed; None if the error is another one."""
    text, named = str(error), getattr(error, "errno", None)
    number = next((n for n in REMEDIES if n == named or f"(os error {n})" in text), None)
    if number is None or isinstance(error, UserError):
        return None
    return (
        f"{os.strerror(number)}: {REMEDIES[number]}, and give the same command again. What was"
        " whole before is kept"
    )


def remove_parts(folder: Path) -> None:
    """Remove what killed processes left half written in `folder`; nobody else may write there."""
    for path in Path(folder).glob(".*.part*"):
        if not PART.fullmatch(path.name):
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path`, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON; NaN and infinity are refused (`ValueError`)."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read one JSON file; `ValueError` where it holds none, or is nested too deeply."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_about(path: Path) -> dict[str, Any]:
    """What a model's folder says of itself in a JSON file; nothing where that cannot be read.

    For checks ahead of the work: whatever loads the folder says what is wrong with it.
    """
    try:
        found = read_json(path)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def text_digest(text: str) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of `text`."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
