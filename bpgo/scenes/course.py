"""What every supervised course shares: the learning rate's way, and averaged weights."""

from __future__ import annotations

import math

import torch
from torch import nn

WARM_UP = 100
EMA_DECAY = 0.995


class Average:
    """Exponential moving average of parameters."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        self.values = [parameter.detach().clone() for parameter in parameters]

    @torch.no_grad()
    def update(self, parameters: list[nn.Parameter], step: int) -> None:
        decay = min(EMA_DECAY, (1 + step) / (10 + step))  # short runs must forget their start
        torch._foreach_lerp_(self.values, [p.detach() for p in parameters], 1 - decay)

    def write(self, parameters: list[nn.Parameter]) -> None:
        """Overwrite parameters, in the same order, by their averages."""
        for parameter, value in zip(parameters, self.values, strict=True):
            parameter.data.copy_(value)


def learning_rate_share(step: int, steps: int) -> float:
    """Share of the learning rate: linear warm-up, then a cosine to zero."""
    warm_up = min(WARM_UP, max(steps // 10, 1))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(steps - warm_up, 1)))
