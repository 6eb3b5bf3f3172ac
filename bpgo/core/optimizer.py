"""The optimizer, and the float32 weights that it moves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from inspect import unwrap
from typing import Any

import torch
from torch import Tensor

from bpgo.errors import UserError
from bpgo.settings import TrainingSettings


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


class MasterWeights:
    """What the optimizer moves: the parameters, or float32 copies of those in a smaller type.

    A bfloat16 weight has eight bits: a step of a usual learning rate would round to nothing. Its
    float32 copy takes the step, and the weight is the copy, rounded. Float32 parameters are their
    own masters.
    """

    def __init__(self, parameters: Mapping[str, Tensor]) -> None:
        self.parameters = dict(parameters)
        self.tensors = {name: _master(value) for name, value in self.parameters.items()}
        self._copied = [name for name, p in self.parameters.items() if self.tensors[name] is not p]

    def take_gradients(self) -> None:
        """Move the copied parameters' gradients to their masters."""
        for name in self._copied:
            parameter = self.parameters[name]
            if parameter.grad is not None:
                self.tensors[name].grad = parameter.grad.float()
                parameter.grad = None

    @torch.no_grad()
    def give_weights(self) -> None:
        """Round the masters into the parameters that were copied."""
        for name in self._copied:
            self.parameters[name].copy_(self.tensors[name])


def make_optimizer(weights: Iterable[Tensor], settings: TrainingSettings) -> torch.optim.Optimizer:
    """`training.optimizer` over some weights.

    Raises:
        UserError: for `adamw_8bit` without bitsandbytes or without a GPU.
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
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise UserError(
            f"training.optimizer: 'adamw_8bit' needs the package bitsandbytes ({error}): `pip"
            " install bitsandbytes`, or use 'adamw'"
        ) from None
    optimizer: torch.optim.Optimizer = AdamW8bit(several, **options)
    return optimizer


def _master(parameter: Tensor) -> Tensor:
    if parameter.dtype in (torch.float32, torch.float64):
        return parameter
    return parameter.detach().float().requires_grad_()
