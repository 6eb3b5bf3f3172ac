"""Runs the workflow and its commands in folders of their own."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
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

from bpgo.files import sha256

REPOSITORY = Path(__file__).resolve().parents[2]
TIMEOUT = 600  # seconds; generous, for a machine with other work; a hang still fails


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
        """Run Snakemake; `extra` are further configuration files, laid over the first."""
        files = [str(self.configfile), *map(str, extra)]
        place = ["--directory", str(self.folder), "--cores", str(cores)]
        return run_forked("snakemake", ["--configfile", *files, *place, *arguments])

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
def fork_server(program: str) -> subprocess.Popen[bytes]:
    """See `fork_server.py`; it ends with this process, which closes its input."""
    paths = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]))
    return subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("fork_server.py")), program],
        env=os.environ | {"PYTHONPATH": paths},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
    )


def run_forked(program: str, arguments: list[str]) -> Outcome:
    """As `run`, for `python -m PROGRAM ARGUMENTS`, whose imports are most of many calls."""
    server = fork_server(program)
    with tempfile.NamedTemporaryFile("r") as output:
        request = {"arguments": arguments, "folder": str(REPOSITORY), "output": output.name}
        request["environment"] = dict(os.environ)
        server.stdin.write(json.dumps(request).encode() + b"\n")
        group = int(server.stdout.readline())
        try:
            ended, _, _ = select.select([server.stdout], [], [], TIMEOUT)
            if not ended:
                raise subprocess.TimeoutExpired([program, *arguments], TIMEOUT)
        except BaseException:
            os.killpg(group, signal.SIGKILL)
            fork_server.cache_clear()  # the next call gets another one
            raise
        return Outcome(int(server.stdout.readline()), output.read())


def workspace_in(folder: Path) -> Workspace:
    shutil.copytree(REPOSITORY / "config", folder / "config")
    return Workspace(folder)


def digests(folder: Path) -> dict[str, str]:
    """Digest of every file below a folder."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    assert files, f"{folder} is empty"
    return {str(file.relative_to(folder)): sha256(file) for file in files}
