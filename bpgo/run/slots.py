"""GPUs for the jobs of one machine: `python -m bpgo.run.slots COUNT COMMAND ...`.

Snakemake counts GPUs, but does not say which ones a job may use. So each job takes as many slots as
it needs, one a GPU, sets CUDA_VISIBLE_DEVICES and becomes the command. A slot is a locked file; the
operating system drops the lock when the process ends, however it ends.

Nothing is taken where nobody shares: without GPUs, and where a batch system gave the job just the
GPUs it asked for.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from bpgo.errors import UserError
from bpgo.storage.locks import take

VISIBLE = "CUDA_VISIBLE_DEVICES"
NO_LOCKS = (
    ", so two jobs could take one GPU: set TMPDIR to a folder on a file system with flock, such as"
    " one of this machine's own"
)
POLL = 0.2  # seconds between looks for a free slot
# torch's launcher kills its processes 30 seconds after a signal, in the middle of an iteration;
# and SIGUSR1, by which clusters announce the end of a job's time, would kill the launcher itself.
LAUNCHER = {
    "PET_SHUTDOWN_TIMEOUT": "600",
    "PET_SIGNALS_TO_HANDLE": "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1",
}
# A user's settings of accelerate in the environment: they would change what the processes use.
LAUNCHED = ("ACCELERATE_", "FSDP_")


def visible_gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES names; where it is not set, the machine's GPUs by number."""
    named = os.environ.get(VISIBLE)
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip() not in ("", "-1")]
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    asked = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    return asked.stdout.split() if asked.returncode == 0 else []


@contextmanager
def taken(count: int, gpus: list[str], folder: Path) -> Iterator[list[str]]:
    """`count` of `gpus`, nobody else's until the block (or the process) ends; waits for them.

    Jobs are served in turn: one that waits for several GPUs is not overtaken.

    Raises:
        UserError: if there are fewer GPUs than asked for, or the file system knows no locks.
    """
    if count > len(gpus):
        raise UserError(
            f"machine.gpus: a job needs {count} GPUs, but only {len(gpus)} can be used here"
            f" ({', '.join(gpus) or 'none'}); lower machine.gpus, or set {VISIBLE}"
        )
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    held: dict[str, TextIO] = {}
    try:
        with (folder / "turn.lock").open("w") as turn:
            take(turn, NO_LOCKS, wait=True)
            while len(held) < count:
                for gpu in gpus:
                    if gpu not in held and len(held) < count:
                        _try(folder / f"gpu_{gpu.replace('/', '_')}.lock", gpu, held)
                if len(held) < count:
                    time.sleep(POLL)
        yield [gpu for gpu in gpus if gpu in held]
    finally:
        for file in held.values():
            file.close()


def _try(path: Path, gpu: str, held: dict[str, TextIO]) -> None:
    file = path.open("w")
    if not take(file, NO_LOCKS):
        file.close()
        return
    os.set_inheritable(file.fileno(), True)  # the lock goes on while the command runs
    held[gpu] = file


def lock_folder() -> Path:
    """Where this user's jobs lock: one folder a machine, and one for each batch job."""
    job = os.environ.get("SLURM_JOB_ID", "local")
    return Path(tempfile.gettempdir()) / f"bpgo-gpus-{os.getuid()}" / job


def needs_slots(count: int, gpus: list[str]) -> bool:
    """Whether others may use the same GPUs: not if a batch system gave this job exactly these."""
    return bool(gpus) and not ("SLURM_JOB_ID" in os.environ and len(gpus) <= count)


def main(arguments: list[str]) -> None:
    """Take slots and become the command."""
    count, command = int(arguments[0]), arguments[1:]
    if count > 1:
        os.environ.update({name: os.environ.get(name, value) for name, value in LAUNCHER.items()})
        for name in [name for name in os.environ if name.startswith(LAUNCHED)]:
            del os.environ[name]
    gpus = visible_gpus()
    if not needs_slots(count, gpus):
        os.execvp(command[0], command)  # noqa: S606
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # numbers as nvidia-smi gives them
    with taken(count, gpus, lock_folder()) as own:
        os.environ[VISIBLE] = ",".join(own)
        print(f"GPU {os.environ[VISIBLE]}", file=sys.stderr, flush=True)
        os.execvp(command[0], command)  # noqa: S606


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
