"""Fixtures of the tiny world; what a command changes in the process is put back."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "fixtures"))

from tiny_world import tiny_folder, tiny_guided_folder

__all__ = ["tiny_folder", "tiny_guided_folder"]


@pytest.fixture(autouse=True)
def _torch_as_it_was() -> Iterator[None]:
    import torch

    threads, mode = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    yield
    torch.set_num_threads(threads)
    torch.set_deterministic_debug_mode(mode)
