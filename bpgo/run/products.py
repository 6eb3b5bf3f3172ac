"""Matrix products whose rows round alike, however many rows there are.

MKL chooses a kernel by the size of a product, so that a sample's last bits can depend on how many
others share its forward pass; first ratios would be 1 up to rounding only. Its strict mode of
conditional numerical reproducibility (oneMKL developer guide, "Reproducibility Conditions": gemm
with AVX2 and AVX-512) promises equal bits whatever the number of threads. Seen beyond that, on an
Intel Xeon with either: every row rounds alike in products of any size, and nothing is slower. It
was not tried on processors of other makers, and is left alone there.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False  # as in `typing`, whose import takes longer than all the rest
if TYPE_CHECKING:
    from collections.abc import MutableMapping

NAME = "MKL_CBWR"
STRICT = "AUTO,STRICT"  # the processor's own kernels
PROCESSORS = "/proc/cpuinfo"


def round_alike(
    environment: MutableMapping[str, str] = os.environ, processors: str = PROCESSORS
) -> None:
    """Set `MKL_CBWR` on an Intel processor, unless it is set; MKL reads it at its first product."""
    try:
        with open(processors, "rb") as file:  # noqa: PTH123  pathlib takes longer than all the rest
            intel = b"GenuineIntel" in file.read(4096)  # the first core's entry
    except OSError:
        return
    if intel:
        environment.setdefault(NAME, STRICT)
