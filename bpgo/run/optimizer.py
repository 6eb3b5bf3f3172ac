"""The optimizer of the trained weights, which are float32 (`bpgo.models.pipeline`)."""

from __future__ import annotations

from collections.abc import Iterable
from inspect import unwrap
from typing import Any

import torch
from torch import Tensor

from bpgo.config.settings import TrainingSettings
from bpgo.errors import UserError
from bpgo.run.sharding import is_sharded


class AdamW(torch.optim.AdamW):
    """`torch.optim.AdamW` to the bit, without waiting for a compiler that is not used.

    torch wraps these methods to keep its compiler out, and for that imports the compiler: two
    seconds of every process. Nothing is compiled here, so they are called without the wrapping.
    """

    add_param_group = unwrap(torch.optim.AdamW.add_param_group)
    zero_grad = unwrap(torch.optim.AdamW.zero_grad)
    state_dict = unwrap(torch.optim.AdamW.state_dict)
    load_state_dict = unwrap(torch.optim.AdamW.load_state_dict)
    step = torch.no_grad()(unwrap(torch.optim.AdamW.step))


def make_optimizer(weights: Iterable[Tensor], settings: TrainingSettings) -> torch.optim.Optimizer:
    """`training.optimizer` over some weights.

    Raises:
        UserError: for `adamw_8bit` without bitsandbytes, without a GPU, or on sharded weights.
    """
    several = list(weights)
    options: dict[str, Any] = {
        "lr": settings.learning_rate,
        "betas": (settings.betas[0], settings.betas[1]),
        "eps": settings.epsilon,
        "weight_decay": settings.weight_decay,
    }
    if settings.optimizer == "adamw":
        return AdamW(several, fused=True, **options)
    if not all(weight.device.type == "cuda" for weight in several):
        raise UserError(
            "training.optimizer: 'adamw_8bit' needs a GPU, and torch sees none here; 'adamw' runs"
            " everywhere"
        )
    if any(is_sharded(weight) for weight in several):
        raise UserError(
            "training.optimizer: 'adamw_8bit' cannot move weights that are sharded over several"
            " GPUs: use 'adamw', or machine.shard_weights: false"
        )
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise UserError(
            f"training.optimizer: 'adamw_8bit' needs the package bitsandbytes ({error}): `pip"
            " install bitsandbytes`, or use 'adamw'"
        ) from None
    optimizer: torch.optim.Optimizer = AdamW8bit(several, **options)
    return optimizer
