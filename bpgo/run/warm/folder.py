"""The private folder of one run of Snakemake, in which its jobs find their server.

Snakemake makes it and names it in the environment of its jobs, with its own process. What a job
needs of this file imports nothing that takes time.
"""

from __future__ import annotations

import os
import stat
import sys
from zlib import adler32, crc32

VARIABLE = "BPGO_WARM"
# These differ between jobs and change nothing of what a process imports.
PASSING = ("PWD", "OLDPWD", "SHLVL", "_")
PACKAGES = ("bpgo", "baselines")


class ColdError(Exception):
    """The job starts by itself; the message says why."""


class Workflow:
    """A run of Snakemake: its process, its folder, and which models one process may import lean.

    Args:
        process: Snakemake's.
        started: when that process began, in clock ticks after the machine did.
        host: where.
        kinds: of models (`bpgo.run.lean_import`), if every job of the run has full weights.
        folder: nobody else's.
    """

    def __init__(
        self, process: int, started: int, host: str, kinds: tuple[str, ...], folder: str
    ) -> None:
        self.process, self.started, self.host = process, started, host
        self.kinds, self.folder = kinds, folder

    def __str__(self) -> str:
        kinds = ",".join(self.kinds)
        return f"{self.process}:{self.started}:{self.host}:{kinds}:{self.folder}"

    @classmethod
    def of_this_job(cls) -> Workflow | None:
        """The run of Snakemake whose job this process is; None without, or on another machine.

        Raises:
            ColdError: if the environment names something else.
        """
        if not (text := os.environ.get(VARIABLE)):
            return None
        try:
            process, started, host, kinds, folder = text.split(":", 4)
            numbers = int(process), int(started)
        except ValueError:
            raise ColdError(f"{VARIABLE} is '{text}', which is none of Snakemake's") from None
        if host != os.uname().nodename:
            return None
        return cls(*numbers, host, tuple(filter(None, kinds.split(","))), folder)

    def runs(self) -> bool:
        """Whether Snakemake's process is there."""
        return start_of(self.process) == self.started

    def goes_on(self) -> bool:
        """Whether Snakemake's process and the folder are there."""
        return self.runs() and os.path.isdir(self.folder)  # noqa: PTH112

    def enter(self) -> int:
        """The folder as an open file: its socket's path is short, however long the folder's is.

        Raises:
            ColdError: if it is not this user's alone.
        """
        opened = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        found = os.fstat(opened)
        if found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) != stat.S_IRWXU:
            os.close(opened)
            raise ColdError(f"{self.folder} is not this user's alone")
        return opened


def start_of(process: int) -> int | None:
    """When a process began, in clock ticks; None if it has ended."""
    try:
        with open(f"/proc/{process}/stat", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def name_of_server() -> str:
    """What tells servers of one run apart: Python, environment, folder, this code.

    Edited code is another server's, so a job never runs code that is older than it.
    """
    kept = sorted(item for item in os.environ.items() if item[0] not in PASSING)
    text = repr((sys.executable, os.getcwd(), kept, _files()))  # noqa: PTH109
    data = text.encode("utf-8", "surrogateescape")
    return f"{crc32(data):08x}{adler32(data):08x}"


def _files() -> list[tuple[str, int, int]]:
    """Path, time and size of each Python file of ours."""
    # pathlib takes longer to import than all the rest.
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(__file__))))  # noqa: PTH120
    folders, files = [os.path.join(root, package) for package in PACKAGES], []  # noqa: PTH118
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir():
                    folders.append(entry.path)
                elif entry.name.endswith(".py"):
                    found = entry.stat()
                    files.append((entry.path, found.st_mtime_ns, found.st_size))
    return sorted(files)


def open_folder(kinds: list[str]) -> str:
    """Make a folder for the run of Snakemake that this process is; its jobs will find it.

    Args:
        kinds: see `Workflow`.

    Raises:
        ColdError: where there can be no server, saying why.
    """
    import tempfile

    started = start_of(os.getpid())
    if sys.platform != "linux" or started is None:
        raise ColdError("it needs Linux")
    try:
        folder = tempfile.mkdtemp(prefix="bpgo-")
    except OSError as error:
        raise ColdError(f"no folder for it can be made: {error}") from None
    found = Workflow(os.getpid(), started, os.uname().nodename, tuple(kinds), folder)
    os.environ[VARIABLE] = str(found)
    return folder


def close_folder() -> None:
    """Remove this process's folder, if it has made one; its servers end."""
    import shutil

    found = Workflow.of_this_job()
    if found is not None and found.process == os.getpid():
        del os.environ[VARIABLE]
        shutil.rmtree(found.folder, ignore_errors=True)
