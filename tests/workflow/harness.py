"""Runs the workflow and its commands in folders of their own."""

from __future__ import annotations

import atexit
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from fork_client import Call

from bpgo.storage.files import sha256, write_text

REPOSITORY = Path(__file__).resolve().parents[2]
TIMEOUT = 1200  # seconds; generous, for a machine with other work; a hang still fails


@dataclass(frozen=True)
class Outcome:
    """How a call of Snakemake ended."""

    code: int
    text: str

    def jobs(self) -> Counter[str]:
        """How many jobs of each rule were planned or run."""
        return Counter(re.findall(r"^(?:local)?rule (\w+):$", self.text, flags=re.MULTILINE))

    def wildcards(self, rule: str) -> list[dict[str, str]]:
        """The wildcards of each job of one rule."""
        blocks = re.split(r"^(?=\[)", self.text, flags=re.MULTILINE)
        found = []
        for block in blocks:
            if re.search(rf"^rule {rule}:$", block, flags=re.MULTILINE):
                line = re.search(r"^ +wildcards: (.*)$", block, flags=re.MULTILINE)
                found.append(dict(pair.split("=", 1) for pair in line[1].split(", ")))
        return found


@dataclass(frozen=True)
class Workspace:
    """A folder with its own configuration and results; the workflow's code is the clone's."""

    folder: Path
    name: str = "config"

    @property
    def configfile(self) -> Path:
        return self.folder / "config" / f"{self.name}.yaml"

    def with_config(self, name: str) -> Workspace:
        """The same folder, run with `config/{name}.yaml`."""
        return Workspace(self.folder, name)

    def edit(self, change: Callable[[dict[str, Any]], None], name: str = "config") -> None:
        """Change the values of `config/{name}.yaml`."""
        path = self.folder / "config" / f"{name}.yaml"
        values = yaml.safe_load(path.read_text())
        change(values)
        path.write_text(yaml.safe_dump(values, sort_keys=False))

    def snakemake(self, *arguments: str, cores: int = 2, extra: Sequence[Path] = ()) -> Outcome:
        """Run Snakemake; `extra` are further configuration files, laid over the first.

        Its jobs are forked too, but with `--use-conda`, where each has a Python of its own. Not by
        the workflow's own server, which would import everything once for each call.
        """
        files = [str(self.configfile), *map(str, extra)]
        words = ["--configfile", *files, "--directory", str(self.folder), "--cores", str(cores)]
        if "--use-conda" in arguments:
            return run_forked("snakemake", [*words, *arguments])
        if "--config" in arguments:
            at = arguments.index("--config") + 1
            words += [*arguments[:at], "warm=false", *arguments[at:]]
        else:
            words = ["--config", "warm=false", *words, *arguments]
        return run_forked("snakemake", words, executable=python_of_jobs())

    def bpgo(self, *arguments: str | Path) -> Outcome:
        return run_forked("bpgo", [*map(str, arguments)])

    def path(self, name: str) -> Path:
        return self.folder / name


def run(command: list[str], cwd: Path = REPOSITORY) -> Outcome:
    """Run a command to its end, standard output and error in one text.

    It gets a process group of its own, so that nothing it started outlives a time-out.
    """
    with subprocess.Popen(
        command,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            text, _ = process.communicate(timeout=TIMEOUT)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return Outcome(process.returncode, text)


@cache
def fork_server(program: str) -> tuple[str, subprocess.Popen[bytes]]:
    """Its address; see `fork_server.py`. It ends with this process, which closes its input."""
    address = str(Path(tempfile.mkdtemp(prefix="fork-"), "socket"))
    atexit.register(shutil.rmtree, Path(address).parent)
    paths = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        number = listener.fileno()
        script = str(Path(__file__).with_name("fork_server.py"))
        return address, subprocess.Popen(
            [sys.executable, script, program, str(number)],
            env=os.environ | {"PYTHONPATH": paths},
            stdin=subprocess.PIPE,
            pass_fds=[number],
        )


@cache
def python_of_jobs() -> str:
    """A `python` whose `-m bpgo` is forked; anything else is the real one's."""
    address, _ = fork_server("bpgo")
    client, python = Path(__file__).with_name("fork_client.py"), shlex.quote(sys.executable)
    forked = f"exec {python} -I -S {shlex.quote(str(client))} {shlex.quote(address)}"
    path = Path(address).with_name("python")
    write_text(
        path,
        f'#!/bin/sh\nif [ "$1 $2" = "-m bpgo" ]; then shift 2; {forked} "$@"; fi\n'
        f'exec {python} "$@"\n',
    )
    path.chmod(0o755)
    return str(path)


def run_forked(program: str, arguments: list[str], **options: Any) -> Outcome:
    """As `run`, for `python -m PROGRAM ARGUMENTS`, whose imports are most of many calls."""
    address, _ = fork_server(program)
    request = {"arguments": arguments, "folder": str(REPOSITORY), "environment": dict(os.environ)}
    with tempfile.TemporaryFile("w+") as output, Path(os.devnull).open() as nothing:
        files = (nothing.fileno(), output.fileno(), output.fileno())
        call = Call(address, request | options, files)
        with call.connection:  # closed early, it ends the call
            code = call.wait(TIMEOUT)
        output.seek(0)
        return Outcome(code, output.read())


def workspace_in(folder: Path) -> Workspace:
    shutil.copytree(REPOSITORY / "config", folder / "config")
    return Workspace(folder)


def digests(folder: Path) -> dict[str, str]:
    """Digest of every file below a folder."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    assert files, f"{folder} is empty"
    return {str(file.relative_to(folder)): sha256(file) for file in files}
