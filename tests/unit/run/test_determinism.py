"""Where torch must take deterministic kernels."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from bpgo.run.determinism import repeatable

GPU, CPU = torch.device("cuda"), torch.device("cpu")
WARN, ERROR = 1, 2


@pytest.fixture
def mode() -> Iterator[None]:
    before = torch.get_deterministic_debug_mode()
    yield
    torch.set_deterministic_debug_mode(before)


@pytest.mark.usefixtures("mode")
@pytest.mark.parametrize(
    ("device", "before", "inside"),
    [(GPU, "warn", ERROR), (CPU, "warn", WARN), (GPU, "default", 0)],
)
def test_it_is_strict_on_a_gpu_only(device: torch.device, before: str, inside: int) -> None:
    torch.set_deterministic_debug_mode(before)
    outside = torch.get_deterministic_debug_mode()
    with repeatable(device):
        assert torch.get_deterministic_debug_mode() == inside
    assert torch.get_deterministic_debug_mode() == outside


@pytest.mark.usefixtures("mode")
def test_the_mode_comes_back_after_an_error() -> None:
    torch.set_deterministic_debug_mode("warn")
    with pytest.raises(ZeroDivisionError), repeatable(GPU):
        raise ZeroDivisionError
    assert torch.get_deterministic_debug_mode() == WARN
