"""GPUs by name: peak speed and memory. Unknown ones are called unknown."""

from __future__ import annotations

from dataclasses import dataclass

# Dense bfloat16 operations a second with float32 sums, without sparsity, and gigabytes (10^9) of
# memory; from NVIDIA's and AMD's data sheets. The first name all of whose words occur wins.
_KNOWN: list[tuple[str, float, int]] = [
    ("B200", 2250e12, 192),
    ("GH200", 989.4e12, 96),
    ("H200", 989.4e12, 141),
    ("H100 PCIe", 756e12, 80),
    ("H100 NVL", 835e12, 94),
    ("H100", 989.4e12, 80),  # SXM: nvidia-smi says "H100 80GB HBM3"
    ("H800", 989.4e12, 80),
    ("A100 40GB", 312e12, 40),
    ("A100", 312e12, 80),
    ("A800", 312e12, 80),
    ("L40S", 362e12, 48),
    ("L40", 181e12, 48),
    ("L4", 121e12, 24),
    ("A40", 149.7e12, 48),
    ("A10G", 70e12, 24),
    ("A10", 125e12, 24),
    ("RTX 6000 Ada", 364.2e12, 48),
    ("RTX A6000", 154.8e12, 48),
    ("RTX 4090", 165.2e12, 24),
    ("RTX 3090", 71e12, 24),
    ("MI300X", 1307e12, 192),
]


@dataclass(frozen=True)
class Gpu:
    """A GPU's data sheet."""

    name: str
    peak_flops: float
    gigabytes: int


def known_gpu(name: str) -> Gpu | None:
    """The data sheet of a GPU named as `nvidia-smi` or `torch.cuda` names it, None if unknown."""
    words = set(name.lower().replace("-", " ").split())
    for known, peak, gigabytes in _KNOWN:
        if all(word in words for word in known.lower().split()):
            return Gpu(known, peak, gigabytes)
    return None


def known_names() -> list[str]:
    """The names that `known_gpu` knows."""
    return [name for name, _, _ in _KNOWN]
