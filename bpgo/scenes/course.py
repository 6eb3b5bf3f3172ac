"""One supervised course: what codecs, policies and reward models of both worlds are trained by."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from bpgo.run.ema import EMA, warmed_up
from bpgo.run.progress import Progress

WARM_UP = 100
EMA_DECAY = 0.995
GRADIENT_CLIP = 1.0

Loss = tuple[Tensor, dict[str, Tensor]]  # what is minimised, and what is shown


def run_course(
    name: str,
    steps: int,
    optimizer: Optimizer,
    schedule: LRScheduler,
    loss_of_batch: Callable[[], Loss],
    average: EMA | None = None,
) -> None:
    """Take ``steps`` optimizer steps, each on a batch that ``loss_of_batch`` draws."""
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    with Progress(name, steps) as progress:
        for done in range(1, steps + 1):
            loss, figures = loss_of_batch()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, GRADIENT_CLIP)
            optimizer.step()
            schedule.step()
            if average is not None:
                average.update()
            progress.step(done, _shown({key: value.item() for key, value in figures.items()}))


@dataclass(frozen=True)
class FlowCourse:
    """A course of flow matching.

    ``level`` is the mean of the logit of the noise levels: layouts are decided at high noise.
    """

    name: str
    steps: int
    rate: float
    level: float
    batch: int


def match_flow(
    course: FlowCourse,
    parameters: Mapping[str, nn.Parameter],
    data: Tensor,
    predict: Callable[[Tensor, Tensor, Tensor], Tensor],
    draws: torch.Generator,
) -> EMA:
    """Train a velocity by flow matching; the average of its weights.

    Noise levels are logit-normal, the target is noise minus data (Esser et al., 2024, arXiv
    2403.03206, section 3.1).

    Args:
        course: how long, how fast, at which noise levels.
        parameters: what is trained, by name.
        data: N examples, [N, ...].
        predict: from rows [B] of the examples, these with noise [B, ...] and their noise levels
            [B] to velocities [B, ...].
        draws: of rows, noise levels and noise.
    """
    # Short runs must forget their start, so the average's decay warms up.
    average = EMA(parameters, warmed_up(EMA_DECAY))
    optimizer = torch.optim.AdamW(
        parameters.values(), lr=course.rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True
    )

    def loss_of_batch() -> Loss:
        rows = torch.randint(len(data), (course.batch,), generator=draws)
        clean = data[rows]
        sigma = torch.sigmoid(course.level + torch.randn(len(rows), generator=draws))
        noise = torch.randn(clean.shape, generator=draws)
        level = sigma.view(-1, *[1] * (data.ndim - 1))
        noisy = (1 - level) * clean + level * noise
        loss = (predict(rows, noisy, sigma) - (noise - clean)).square().mean()
        return loss, {"loss": loss}

    schedule = cosine(optimizer, course.steps)
    run_course(course.name, course.steps, optimizer, schedule, loss_of_batch, average)
    return average


def cosine(optimizer: Optimizer, steps: int) -> LambdaLR:
    """The learning rate's way by `learning_rate_share`."""
    return LambdaLR(optimizer, lambda step: learning_rate_share(step, steps))


def one_cycle(optimizer: Optimizer, rate: float, steps: int, rise: float = 0.1) -> OneCycleLR:
    """The learning rate's way: up to ``rate`` over a share ``rise`` of the steps, and down."""
    return OneCycleLR(optimizer, rate, total_steps=max(steps, 2), pct_start=rise)


def learning_rate_share(step: int, steps: int) -> float:
    """Share of the learning rate: linear warm-up, then a cosine to zero."""
    warm_up = min(WARM_UP, max(steps // 10, 1))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(steps - warm_up, 1)))


def say(stage: str, figures: Mapping[str, float]) -> None:
    """Report a stage's result as one line."""
    print(f"{stage}: done, {_shown(figures)}", file=sys.stderr, flush=True)


def _shown(figures: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in figures.items())
