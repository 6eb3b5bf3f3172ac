"""What made a result: settings, code, versions, hardware."""

from __future__ import annotations

import hashlib
import os
import platform
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from bpgo import __version__
from bpgo.errors import UserError, shown
from bpgo.run.machine import processor
from bpgo.storage.files import repository_root
from bpgo.storage.seals import NUMBER, Kinds, read_sealed

# Analysis and commands read results; they do not change what a run computes.
NOT_PART_OF_A_RUN = (
    "analysis",
    "tools",
    "machine.py",
    "cli.py",
    "__main__.py",
    "pretrain.py",
)
# What readers take from a manifest, by type.
KINDS: Kinds = {
    "code_digest": str,
    "code": dict,
    "failed": str,
    "files": dict,
    "hardware": dict,
    "packages": dict,
    "python": str,
    "wall_seconds": NUMBER,
}
PACKAGES = ("torch", "diffusers", "transformers", "peft", "numpy")


@cache
def code_digest() -> str:
    """Digest of the Python files that decide what a run computes (16 hexadecimal digits)."""
    root = repository_root()
    digest = hashlib.sha256()
    for package in ("bpgo", "baselines"):
        for file in sorted((root / package).rglob("*.py")):
            parts = file.relative_to(root).parts
            if any(part in NOT_PART_OF_A_RUN for part in parts):
                continue
            digest.update("/".join(parts).encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def manifest(**entries: Any) -> dict[str, Any]:
    """The code digest, package versions and hardware, plus the given entries."""
    return {
        "bpgo": __version__,
        "code_digest": code_digest(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "hardware": {
            "processor": processor(),
            "cores": os.cpu_count(),
            "system": platform.system(),
        },
        **entries,
    }


def read_manifest(path: Path, remedy: str, of: str = "") -> dict[str, Any]:
    """The manifest of a run; `of`: whose it must be (`bpgo.config.contents`; empty: anybody's).

    Raises:
        UserError: naming the file, and the key if one is of another type or missing; ends with
            `remedy`.
    """
    found = read_sealed(path, remedy, of, {"config_digest": str}, KINDS)
    for key in ("code", "files"):
        odd = {name: each for name, each in found.get(key, {}).items() if not isinstance(each, str)}
        if odd:
            name, value = odd.popitem()
            raise UserError(f"{path}: {key}.{name} is {shown(value)}, no digest; {remedy}")
    return found


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
