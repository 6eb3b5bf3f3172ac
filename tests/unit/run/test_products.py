"""MKL's strict mode is asked for on Intel processors alone, and rows then round alike."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from bpgo.run import products

INTEL = "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Intel(R) Xeon(R) Processor\n"
AMD = INTEL.replace("GenuineIntel", "AuthenticAMD")


@pytest.mark.parametrize(
    ("text", "before", "after"),
    [
        (INTEL, {}, {"MKL_CBWR": "AUTO,STRICT"}),
        (INTEL, {"MKL_CBWR": "AVX2"}, {"MKL_CBWR": "AVX2"}),
        (AMD, {}, {}),
        (None, {}, {}),
    ],
    ids=["intel", "a user's own", "amd", "unknown"],
)
def test_where_the_mode_is_set(
    text: str | None, before: dict[str, str], after: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "cpuinfo"
    if text is not None:
        file.write_text(text)
    products.round_alike(before, str(file))
    assert before == after


@pytest.mark.skipif(
    os.environ.get("MKL_CBWR") != products.STRICT, reason="MKL is not in its strict mode here"
)
@pytest.mark.parametrize("width", [8, 24, 64, 256, 1024])
def test_rows_round_alike_in_products_of_any_size(width: int) -> None:
    draws = torch.Generator().manual_seed(width)
    layer, rows = torch.nn.Linear(width, 64), torch.randn(100, width, generator=draws)
    whole = layer(rows)
    for count in range(1, 101):
        assert torch.equal(layer(rows[:count]), whole[:count]), count
