"""Fixtures of the tiny world."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "fixtures"))

from tiny_world import tiny_folder, tiny_guided_folder  # noqa: E402

__all__ = ["tiny_folder", "tiny_guided_folder"]
