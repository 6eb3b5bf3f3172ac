"""Fixtures of the tiny world; what a command changes in the process is put back."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "fixtures"))

from tiny_world import tiny_folder, tiny_guided_folder, tiny_sd3_folder

__all__ = ["tiny_folder", "tiny_guided_folder", "tiny_sd3_folder"]


@pytest.fixture(autouse=True)
def _process_as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Commands set up a process of their own; here many tests share one.

    Above all, `import_lean` must not run before diffusers is imported whole: what it leaves out
    would then be missing in every later test.
    """
    import torch

    monkeypatch.setattr("bpgo.run.lean_import.import_lean", lambda _kind: None)
    threads, mode = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    yield
    torch.set_num_threads(threads)
    torch.set_deterministic_debug_mode(mode)
