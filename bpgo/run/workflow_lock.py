"""Snakemake's lock of its folder, where Snakemake was killed: removed if nobody holds it.

Snakemake writes names of files into `.snakemake/locks` and removes them at its end. Killed, it
leaves them, and refuses to start again. So each run of the workflow says who it is, and the next
one removes locks whose runs have all ended.
"""

from __future__ import annotations

import os
from pathlib import Path

from bpgo.run.warm.folder import start_of

HOLDERS = "bpgo_runs"


def hold(folder: Path) -> None:
    """Say in `folder` (`.snakemake`) that this process runs the workflow."""
    if (started := start_of(os.getpid())) is None:
        return
    place = folder / HOLDERS
    place.mkdir(parents=True, exist_ok=True)
    (place / f"{os.getpid()}").write_text(
        f"{started} {_boot()} {os.uname().nodename}", encoding="utf-8"
    )


def let_go(folder: Path) -> None:
    """Say that it does so no more."""
    (folder / HOLDERS / f"{os.getpid()}").unlink(missing_ok=True)


def remove_stale_locks(folder: Path) -> bool:
    """Remove the locks in `folder` if all runs that may hold them have ended; whether it did.

    Locks of a run on another machine, or of one that has not said who it is, stay.
    """
    locks = [file for file in (folder / "locks").glob("*.lock") if file.is_file()]
    holders = list((folder / HOLDERS).glob("[0-9]*"))
    if not locks or not holders or not all(map(_has_ended, holders)):
        return False
    for file in [*locks, *holders]:
        file.unlink(missing_ok=True)
    return True


def _has_ended(holder: Path) -> bool:
    """Whether the process has, on this machine; False where that cannot be known."""
    try:
        started, boot, name = holder.read_text(encoding="utf-8").split(" ", 2)
        if name != os.uname().nodename:
            return False
        return boot != _boot() or start_of(int(holder.name)) != int(started)
    except (OSError, ValueError):
        return False


def _boot() -> str:
    """What tells one start of the machine, since which processes are numbered, from the next."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        return "unknown"
