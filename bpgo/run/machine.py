"""What this machine has: processor, memory, disks, GPUs, programs. Asked without torch or network.

Every probe answers with what it finds; what cannot be asked is None or empty, never an error.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

GB = 1e9  # bytes; gigabytes are 10^9 bytes everywhere, as disks and licences count them
PROBE_SECONDS = 5  # for a program that hangs, as `sinfo` does without its controller


@dataclass(frozen=True)
class GpuDevice:
    """One GPU, as its driver names it."""

    name: str
    gigabytes: float
    driver: str


@dataclass(frozen=True)
class TorchBuild:
    """The installed torch: version, and for what it was built (`cuda 13.0`, `rocm 6.4`, `cpu`)."""

    version: str
    built_for: str

    @property
    def sees_gpus(self) -> bool:
        return self.built_for != "cpu"


@dataclass(frozen=True)
class Slurm:
    """A cluster's partitions and their GPUs, as `sinfo` tells; empty if it does not answer."""

    partitions: dict[str, str] = field(default_factory=dict)  # name -> its GPUs, or ""
    complaint: str = ""


@dataclass(frozen=True)
class Machine:
    """This machine; sizes in gigabytes."""

    python: str
    system: str
    processor: str
    cores: int
    memory: float
    disks: dict[str, tuple[Path, float]]  # use -> where, free
    gpus: list[GpuDevice]
    torch: TorchBuild | None
    conda: str | None  # its program, as Snakemake's --use-conda needs it
    slurm: Slurm | None


def this_machine(results: Path, cache: Path) -> Machine:
    """Ask this machine.

    Args:
        results: where results are written.
        cache: where the hub's files are kept.
    """
    return Machine(
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        processor=processor(),
        cores=cores(),
        memory=memory_bytes() / GB,
        disks={
            name: (path, shutil.disk_usage(_existing(path)).free / GB)
            for name, path in (("results", results), ("hub cache", cache))
        },
        gpus=gpus(),
        torch=torch_build(),
        conda=shutil.which("conda"),
        slurm=slurm(),
    )


def processor() -> str:
    """The processor's name."""
    try:
        for line in (
            Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        ):
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def cores(control_group: Path = Path("/sys/fs/cgroup")) -> int:
    """Processor cores that this process may use: its affinity, and a container's quota."""
    affinity = getattr(os, "sched_getaffinity", None)
    found = len(affinity(0)) if affinity else os.cpu_count() or 1
    try:
        quota, period = (control_group / "cpu.max").read_text().split()
        return max(1, min(found, int(quota) // int(period)))
    except (OSError, ValueError):  # no container, or `max`
        return found


def memory_bytes(control_group: Path = Path("/sys/fs/cgroup")) -> int:
    """Memory that this process may use: the machine's, or a container's limit."""
    try:
        found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return 0
    try:
        return min(found, int((control_group / "memory.max").read_text()))
    except (OSError, ValueError):
        return found


def gpus() -> list[GpuDevice]:
    """NVIDIA's GPUs that a job here would see; empty without their driver's `nvidia-smi`."""
    query = "--query-gpu=index,uuid,name,memory.total,driver_version"
    answer = _ask("nvidia-smi", query, "--format=csv,noheader,nounits")
    found = {}
    for line in (answer or "").splitlines():
        parts = [part.strip() for part in line.split(",")]
        if len(parts) == 5 and re.fullmatch(r"\d+(\.\d+)?", parts[3]):
            index, uuid, name, mebibytes, driver = parts
            found[index] = found[uuid] = GpuDevice(name, float(mebibytes) * 2**20 / GB, driver)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return [gpu for key, gpu in found.items() if key.isdigit()]
    chosen = [word.strip() for word in visible.split(",") if word.strip()]
    return [found[word] for word in chosen if word in found]


def torch_build() -> TorchBuild | None:
    """The installed torch, read from its files: importing it takes seconds."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    try:
        text = (Path(spec.origin).parent / "version.py").read_text(encoding="utf-8")
    except OSError:
        return None
    values = dict(re.findall(r"^(\w+)(?::[^=]*)? = '([^']*)'$", text, flags=re.MULTILINE))
    built = next((f"{kind} {values[kind]}" for kind in ("cuda", "hip") if kind in values), "cpu")
    return TorchBuild(values.get("__version__", "unknown"), built.replace("hip", "rocm"))


def slurm() -> Slurm | None:
    """The cluster whose commands are here; None without them."""
    if shutil.which("sbatch") is None or shutil.which("sinfo") is None:
        return None
    answer = _ask("sinfo", "--noheader", "--format=%R|%G")
    if answer is None:
        return Slurm(complaint="sinfo does not answer")
    partitions: dict[str, str] = {}
    for line in answer.splitlines():
        name, _, resources = line.partition("|")
        found = "" if resources.strip() in ("(null)", "") else resources.strip()
        partitions[name.strip()] = partitions.get(name.strip()) or found
    return Slurm(partitions)


def _ask(program: str, *arguments: str) -> str | None:
    """What a program prints; None if it is absent, fails or hangs."""
    if (path := shutil.which(program)) is None:
        return None
    try:
        answer = subprocess.run(  # noqa: S603 (a fixed command line)
            [path, *arguments],
            capture_output=True,
            text=True,
            timeout=PROBE_SECONDS,
            check=True,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout


def _existing(path: Path) -> Path:
    """The nearest folder above `path` that exists."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path
