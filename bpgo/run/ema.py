"""Exponential moving average of named tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


class EMA:
    """Average of a policy's parameters with Flow-GRPO's warm-up.

    After optimizer step k (from 0), where (k + 1) is a multiple of `every`, the average moves by
    1 - d towards the parameters, d = min((1 + k) / (10 + k), decay). Averages are float32 (float64
    where the parameter is), whatever the parameters' type.
    """

    def __init__(self, parameters: Mapping[str, Tensor], decay: float, every: int = 1) -> None:
        self.parameters = dict(parameters)  # the policy's own tensors, changed in place by it
        self.decay, self.every, self.steps = decay, every, 0
        self.average = {
            name: value.detach().to(_wide(value.dtype), copy=True)
            for name, value in self.parameters.items()
        }

    @torch.no_grad()
    def update(self) -> None:
        """Count one optimizer step; every `every`-th moves the average."""
        step = self.steps
        self.steps += 1
        if self.steps % self.every:
            return
        decay = min((1 + step) / (10 + step), self.decay)
        for name, average in self.average.items():
            average.lerp_(self.parameters[name].detach().to(average.dtype), 1 - decay)

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Within the block the parameters hold the average; after it, their own values again."""
        own = {name: value.detach().clone() for name, value in self.parameters.items()}
        _copy(self.average, self.parameters)
        try:
            yield
        finally:
            _copy(own, self.parameters)

    def state_dict(self) -> dict[str, Tensor]:
        """Flat and of tensors only, as safetensors wants it."""
        averages = {f"average.{name}": value.clone() for name, value in self.average.items()}
        return {"steps": torch.tensor(self.steps), **averages}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore `state_dict`; `KeyError` where the names differ from the parameters'."""
        expected = {"steps", *(f"average.{name}" for name in self.average)}
        if expected != set(state):
            raise KeyError(f"EMA state has other names: {sorted(expected ^ set(state))}")
        self.steps = int(state["steps"])
        _copy({name: state[f"average.{name}"] for name in self.average}, self.average)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


@torch.no_grad()
def _copy(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    for name, value in source.items():
        target[name].copy_(value)
