"""All randomness, from counters.

A draw is named by what it is for: `(run seed, purpose, iteration, prompt id, sample, ...)`. So a
sample depends on its own name only, not on the batch size, the rank or what was drawn before, and
a resumed run needs no stored generator state.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch


def derive_seed(*keys: int | str) -> int:
    """A 63-bit seed from any number of keys. `(1, "2")` and `("1", 2)` give different seeds."""
    text = "\x1f".join(f"{type(key).__name__}:{key}" for key in keys)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(*keys: int | str) -> torch.Generator:
    """A CPU generator for one named draw; noise is made on the CPU whatever the device is."""
    import torch

    return torch.Generator().manual_seed(derive_seed(*keys))


def numpy_generator(*keys: int | str) -> np.random.Generator:
    """The numpy counterpart of `generator`."""
    import numpy as np

    return np.random.default_rng(derive_seed(*keys))
