"""What made a result: settings, code, versions, hardware."""

from __future__ import annotations

import hashlib
import os
import platform
from functools import cache
from importlib import metadata
from typing import Any

from bpgo import __version__
from bpgo.run.machine import processor
from bpgo.storage.files import repository_root

# Analysis and commands read results; they do not change what a run computes.
NOT_PART_OF_A_RUN = (
    "analysis",
    "tools",
    "machine.py",
    "cli.py",
    "__main__.py",
    "pretrain.py",
)
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


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
