"""Exponential moving average of named tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


def warmed_up(decay: float) -> Callable[[int], float]:
    """Flow-GRPO's warm-up: at count n (from 1) the average keeps min(n / (n + 9), decay)."""
    return lambda n: min(n / (n + 9), decay)


class EMA:
    """Average of a policy's parameters.

    n counts optimizer steps. `update` is called after each with `by_step`, else after each
    iteration. Where n is a multiple of `every`, the average moves by 1 - decay(n) towards the
    parameters. Averages are float32 (float64 where the parameter is), whatever their type.
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        decay: Callable[[int], float],
        every: int = 1,
        by_step: bool = True,
    ) -> None:
        self.parameters = dict(parameters)  # the policy's own tensors, changed in place by it
        self.decay, self.every, self.by_step, self.steps = decay, every, by_step, 0
        self.average = {
            name: value.detach().to(_wide(value.dtype), copy=True)
            for name, value in self.parameters.items()
        }

    @torch.no_grad()
    def update(self, steps: int = 1) -> None:
        """Count so many optimizer steps; every `every`-th count moves the average."""
        self.steps += steps
        if self.steps % self.every:
            return
        averages = list(self.average.values())
        values = [self.parameters[name].to(each.dtype) for name, each in self.average.items()]
        torch._foreach_lerp_(averages, values, 1 - self.decay(self.steps))

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
