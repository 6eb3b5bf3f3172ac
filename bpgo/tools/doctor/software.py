"""Installed packages against the pins, and the software environments of rewards."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from importlib import metadata
from importlib.machinery import PathFinder
from pathlib import Path

from bpgo.errors import UserError
from bpgo.run.machine import TorchBuild
from bpgo.storage.files import repository_root

# Those that a reader asks about; others are named only where something is wrong with them.
SHOWN = (
    "torch",
    "torchvision",
    "diffusers",
    "transformers",
    "peft",
    "open_clip_torch",
    "snakemake",
)
# Asked for by a setting, never needed otherwise: 8-bit AdamW.
OPTIONAL = ("bitsandbytes",)
ENVIRONMENTS = "workflow/envs"
MADE = ".snakemake/conda"  # where Snakemake keeps environments that it made


@dataclass(frozen=True)
class Package:
    """One pinned package: `wanted` is empty where any version serves, `found` where none is."""

    name: str
    group: str  # `main`, or an extra of pyproject.toml
    wanted: str
    found: str
    remark: str = ""

    @property
    def missing(self) -> bool:
        return not self.found

    @property
    def different(self) -> bool:
        """Another version than the pinned one; a build's suffix (`+cpu`) makes no difference."""
        return bool(self.wanted and self.found) and self.found.split("+")[0] != self.wanted


@dataclass(frozen=True)
class Environment:
    """A file in workflow/envs.

    `made`: Snakemake has made it. `here`: this Python has its packages, so that its rewards run
    without `--use-conda` too.
    """

    name: str
    file: Path
    made: bool
    here: bool = False


def packages(torch: TorchBuild | None) -> list[Package]:
    """Every package that pyproject.toml pins, and the optional ones."""
    found = [
        _package(requirement, group, torch)
        for group, requirements in _requirements().items()
        for requirement in requirements
    ]
    return found + [Package(name, "optional", "", _version(name)) for name in OPTIONAL]


def environments(root: Path | None = None) -> list[Environment]:
    """The software environments that the workflow knows."""
    root = root or repository_root()
    made = {file.read_bytes() for file in (root / MADE).glob("*.yaml")}
    files = sorted((root / ENVIRONMENTS).glob("*.yaml"))
    pins = {file.stem: _pins(file) for file in files}
    return [
        Environment(
            file.stem,
            file,
            file.read_bytes() in made,
            _serves(pins[file.stem], pins.get("main", {})),
        )
        for file in files
    ]


def _pins(file: Path) -> dict[str, str]:
    """The packages of an environment's `pip` section, in its order."""
    import yaml

    found = yaml.safe_load(file.read_text(encoding="utf-8")).get("dependencies", [])
    lines = [line for entry in found if isinstance(entry, dict) for line in entry.get("pip", [])]
    return dict(line.split("==", 1) for line in lines if "==" in line)


def _serves(pins: dict[str, str], main: dict[str, str]) -> bool:
    """Whether this Python can stand in for an environment.

    Its first own package is installed, and what it shares with our main environment has its pins;
    the other packages, which only a package's metadata asks for, may differ.
    """
    own = [name for name in pins if name not in main]
    shared = [name for name in pins if name in main]
    same = all(_version(name).split("+")[0] == pins[name] for name in shared)
    return same and all(_version(name) for name in own[:1])


def _requirements() -> dict[str, list[str]]:
    """Requirements by group: `main`, then the extras that a user installs."""
    file = repository_root() / "pyproject.toml"
    try:
        project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
    except FileNotFoundError:
        raise UserError(f"{file}: no such file: the doctor reads a clone of the suite") from None
    extras: dict[str, list[str]] = project["optional-dependencies"]
    return {"main": project["dependencies"]} | {
        name: entries for name, entries in extras.items() if name != "dev"
    }


def _package(requirement: str, group: str, torch: TorchBuild | None) -> Package:
    match = re.match(r"([\w.-]+)(?:\[[^\]]*\])?\s*(?:==\s*([\w.+!-]+))?", requirement)
    assert match is not None
    name, wanted = match[1], match[2] or ""
    remark = _torchvision_remark(torch) if name == "torchvision" else ""
    return Package(name, group, wanted, _version(name), remark)


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _torchvision_remark(torch: TorchBuild | None) -> str:
    """Whether torchvision's compiled part was built for CUDA beside a CPU torch."""
    # Not `importlib.util.find_spec`: it would set off our repair, which imports torch.
    spec = PathFinder.find_spec("torchvision")
    if spec is None or spec.origin is None or torch is None or torch.built_for != "cpu":
        return ""
    for library in Path(spec.origin).parent.glob("_C*.so"):
        if b"libtorch_cuda" in library.read_bytes():
            return "built for CUDA beside a CPU torch: repaired when imported"
    return ""
