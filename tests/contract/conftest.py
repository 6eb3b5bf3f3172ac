"""Fixtures of the tiny world, for the contracts that need a policy."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "fixtures"))

from tiny_world import tiny_folder

__all__ = ["tiny_folder"]
