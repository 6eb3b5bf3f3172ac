"""What a job took, in the columns of Snakemake's `benchmark:`.

Snakemake measures a job's process and its children. A job that a server has forked is neither, so
the command that starts jobs (`bpgo.run.job`) writes this file, for every job in the same way: time,
processor seconds, reads and writes as the kernel counted them at the job's end; memory by looking
at the job's processes now and then, its peak no less than that of the largest one.
"""

from __future__ import annotations

import os

COLUMNS = (
    "s",
    "h:m:s",
    "max_rss",
    "max_vms",
    "max_uss",
    "max_pss",
    "io_in",
    "io_out",
    "mean_load",
    "cpu_time",
)
MEMORY = COLUMNS[2:6]
KILOBYTES, BLOCKS = 1024, 2048  # in a megabyte; a block of reads and writes has 512 bytes
BYTES = 1024 * 1024


class Spent:
    """What the kernel counted of a process that has ended, and of its children that have.

    Args:
        status: as `os.wait` gives it.
        seconds: of processors.
        peak: resident kilobytes of the largest of them.
        read, written: blocks.
    """

    def __init__(self, status: int, seconds: float, peak: int, read: int, written: int) -> None:
        self.status, self.seconds, self.peak = status, seconds, peak
        self.read, self.written = read, written


class Usage:
    """Peak memory of one job."""

    def __init__(self) -> None:
        self.peaks: dict[str, float] = {}

    def look(self, process: int) -> None:
        """Look at a process and its descendants; nothing where the system does not tell."""
        found = [sizes for each in _family(process) if (sizes := _memory(each))]
        for column, value in zip(MEMORY, map(sum, zip(*found, strict=True)), strict=False):
            self.peaks[column] = max(self.peaks.get(column, 0.0), value)

    def write(self, path: str, wall: float, spent: Spent) -> None:
        """One line below a head, as Snakemake writes it: seconds, megabytes, per cent of a core."""
        days, rest = divmod(int(wall), 86400)
        hours, rest = divmod(rest, 3600)
        clock = f"{hours}:{rest // 60:02d}:{rest % 60:02d}"
        peaks = self.peaks | {
            "max_rss": max(self.peaks.get("max_rss", 0.0), spent.peak / KILOBYTES)
        }
        memory = [f"{peaks[column]:.2f}" if column in peaks else "NA" for column in MEMORY]
        moved = [f"{blocks / BLOCKS:.2f}" for blocks in (spent.read, spent.written)]
        load = f"{100 * spent.seconds / wall:.2f}"
        if days:
            clock = f"{days} day{'s' if days > 1 else ''}, {clock}"
        row = [f"{wall:.2f}", clock, *memory, *moved, load, f"{spent.seconds:.2f}"]
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)  # noqa: PTH103, PTH120
        part = f"{path}.part"
        with open(part, "w", encoding="utf-8") as file:  # noqa: PTH123
            file.write("\t".join(COLUMNS) + "\n" + "\t".join(row) + "\n")
        os.replace(part, path)  # noqa: PTH105


def _family(process: int) -> list[int]:
    found, seen = [process], 0
    while seen < len(found):
        folder, seen = f"/proc/{found[seen]}/task", seen + 1
        try:
            for thread in os.listdir(folder):  # noqa: PTH208
                with open(f"{folder}/{thread}/children", encoding="ascii") as file:  # noqa: PTH123
                    found += map(int, file.read().split())
        except OSError:  # it has ended
            continue
    return found


def _memory(process: int) -> tuple[float, float, float, float] | None:
    """Resident, virtual, unshared and proportional megabytes."""
    try:
        with open(f"/proc/{process}/statm", encoding="ascii") as file:  # noqa: PTH123
            pages = int(file.read().split()[0])
        with open(f"/proc/{process}/smaps_rollup", encoding="ascii") as file:  # noqa: PTH123
            words = [line.split() for line in file.read().splitlines()[1:]]
    except (OSError, IndexError):
        return None
    sizes = {word[0]: int(word[1]) / KILOBYTES for word in words}
    unshared = sum(size for name, size in sizes.items() if name.startswith("Private_"))
    virtual = pages * os.sysconf("SC_PAGE_SIZE") / BYTES
    return sizes.get("Rss:", 0.0), virtual, unshared, sizes.get("Pss:", 0.0)
