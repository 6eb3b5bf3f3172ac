"""Gradients with the same bits each time, on a GPU too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """For backward passes: torch's deterministic kernels, where the process asked to be warned.

    `torch.set_deterministic_debug_mode("warn")` warns of attention's backward pass and takes its
    faster kernel, whose sums come in any order; only "error" takes the deterministic one. All else
    stays at "warn": an operation of some reward may have no deterministic kernel. Nothing changes
    on a CPU.

    Raises:
        RuntimeError: inside, from an operation without a deterministic kernel.
    """
    before = torch.get_deterministic_debug_mode()
    if device.type != "cuda" or not before:
        yield
        return
    torch.set_deterministic_debug_mode("error")
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(before)
