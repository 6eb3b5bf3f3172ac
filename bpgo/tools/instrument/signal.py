"""The signal-to-noise ratio of a policy gradient."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bpgo.core.trainer import Trainer
from bpgo.errors import RunError
from bpgo.run.optimizer import AdamW

FLOOR = 1e-3  # of a weight's scale, as a share of the mean over weights


class Recorder(AdamW):
    """Keeps the gradients of each optimizer step and moves nothing."""

    def __init__(self, weights: list[Tensor]) -> None:
        super().__init__(weights)
        self.weights = weights
        self.found: list[Tensor] = []  # [D] each

    def step(self, closure: None = None) -> None:  # type: ignore[override]  # noqa: ARG002
        """All gradients as one vector; of a weight without one: zeros."""
        parts = [w.new_zeros(w.shape) if w.grad is None else w.grad for w in self.weights]
        self.found.append(torch.cat([part.detach().flatten().float().cpu() for part in parts]))

    def take(self) -> Tensor:
        """The mean `[D]` of the gradients since the last call; zeros where there were none."""
        found, self.found = self.found, []
        if found:
            return torch.stack(found).mean(0)
        return torch.zeros(sum(weight.numel() for weight in self.weights))


def batch_gradients(trainer: Trainer, batches: int) -> Tensor:
    """Gradients `[N, D]` of the policy as it is, each of a training iteration's whole batch.

    They are those that the optimizer would get (after `training.gradient_clip`), averaged over the
    optimizer steps of the batch. The trainer is of no use for training afterwards.
    """
    recorder = Recorder(list(trainer.parameters.values()))
    trainer.updater.optimizer = recorder
    found = []
    for iteration in range(1, batches + 1):
        trainer.iterate(iteration)
        found.append(recorder.take())
    return torch.stack(found)


def signal_to_noise(gradients: Tensor) -> tuple[float, float]:
    """|mean|^2 over the variance of a batch's gradient, and its standard error.

    `gradients` `[N, D]`, one row a batch. In Adam's metric: each weight's gradients are divided by
    their root mean square over batches, so a ratio r makes 1/r batches as much signal as noise. The
    squared mean is estimated without bias by products of different batches, the variance by what
    products of a batch with itself have more; the standard error is the jackknife's over batches,
    which is up to 1.4 times too large where there is no signal (Efron and Stein, 1981).

    Raises:
        RunError: no batch has a gradient.
    """
    scale = gradients.square().mean(0).sqrt()
    if not bool(scale.any()):
        raise RunError("no batch has a gradient: every group's rewards are equal")
    scaled = gradients / (scale + FLOOR * scale.mean())
    products = (scaled @ scaled.T).double()
    count = len(products)
    rest = torch.stack([_ratio(_without(products, row)) for row in range(count)])
    spread = (rest - rest.mean()).square().sum() * (count - 1) / count
    return float(_ratio(products)), math.sqrt(float(spread))


def _ratio(products: Tensor) -> Tensor:
    """From products `[n, n]` of batches."""
    count, own = len(products), products.diagonal().mean()
    signal = (products.sum() - count * own) / (count * (count - 1))
    return signal / (own - signal)


def _without(products: Tensor, row: int) -> Tensor:
    kept = torch.arange(len(products)) != row
    return products[kept][:, kept]
