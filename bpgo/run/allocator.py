"""The C library's memory allocator, told to keep what a training iteration frees.

An iteration on a CPU frees the tensors of a forward pass and asks for as many again. By default
glibc hands large ones back to the system, which gives them out again page by page: 10,000 page
faults an iteration of the embedded world, a twentieth of its time. glibc reads what it should do
instead when a process starts, from `GLIBC_TUNABLES` (glibc manual, "Tunables"). No result changes.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

NAME = "GLIBC_TUNABLES"
OLDEST = (2, 35)  # an older glibc ignores thresholds above 32 MiB, and knows no huge pages
KEPT = 2**33  # bytes; an upper limit, not a request
# Tensors come from the heap, and its end stays with the process.
THRESHOLDS = {
    "glibc.malloc.mmap_threshold": str(KEPT),
    "glibc.malloc.trim_threshold": str(KEPT),
}
# The heap grows by more than is asked for: address space, of which what is used takes memory.
PADDING = {"glibc.malloc.top_pad": str(2**28)}
HUGE_PAGES = {"glibc.malloc.hugetlb": "1"}  # the kernel is asked for transparent huge pages
SYSTEM_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
SYSTEM_OVERCOMMIT = Path("/proc/sys/vm/overcommit_memory")
PROBE = 2**26  # bytes; more than glibc keeps by itself


def allocator_variables(
    environment: Mapping[str, str] = os.environ,
    pages: Path = SYSTEM_PAGES,
    overcommit: Path = SYSTEM_OVERCOMMIT,
) -> tuple[dict[str, str], str]:
    """What to set before a process without a GPU starts, and what of it is not used, and why.

    Args:
        environment: whose own `GLIBC_TUNABLES` is kept; of the same tunable its value counts.
        pages: where the kernel says when it gives huge pages.
        overcommit: where it says whether address space must be backed by memory.

    Returns:
        Variables (empty where they could not act), and one line (empty where all is used).
    """
    version = libc_version()
    if sys.platform != "linux" or version is None:
        return {}, "allocator settings are not used: the C library is not glibc"
    if version < OLDEST:
        found, oldest = (".".join(map(str, each)) for each in (version, OLDEST))
        return {}, f"allocator settings are not used: glibc is {found}, older than {oldest}"
    chosen, problems = dict(THRESHOLDS), []
    if _first_line(overcommit) == "2":
        problems.append("a larger heap in advance: the system backs address space by memory")
    else:
        chosen |= PADDING
    if re.search(r"\[(always|madvise)\]", _first_line(pages)):
        chosen |= HUGE_PAGES
    else:
        problems.append(f"huge pages: {pages} does not say always or madvise")
    chosen |= _parsed(environment.get(NAME, ""))
    reason = f"allocator settings that are not used: {'; '.join(problems)}" if problems else ""
    return {NAME: ":".join(f"{name}={value}" for name, value in chosen.items())}, reason


def libc_version() -> tuple[int, int] | None:
    """Glibc's version, major and minor; None with another C library."""
    try:
        name = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (AttributeError, ValueError, OSError):
        return None
    found = re.fullmatch(r"glibc (\d+)\.(\d+).*", name)
    return (int(found[1]), int(found[2])) if found else None


def page_faults() -> int:
    """Pages that this process was given so far, without reading a disk."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def keeps_memory() -> bool:
    """Whether this process keeps what it frees, tried with a large block."""
    _touch()
    before = page_faults()
    _touch()
    return page_faults() - before < PROBE / 2**21 / 2  # with huge pages: one fault each 2 MiB


def _touch() -> None:
    """Write to a large block, and free it."""
    bytes([1]) * PROBE


def _first_line(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return ""


def _parsed(text: str) -> dict[str, str]:
    """A user's own tunables, in their order."""
    pairs = (each.partition("=") for each in text.split(":") if "=" in each)
    return {name: value for name, _, value in pairs}
