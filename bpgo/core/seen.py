"""The one record of trained points: what a loss may look at, each part computed if it is asked for.

Shapes: N rows, a row is one sample at one noise level; `...` any latent layout.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from torch import Tensor

from bpgo.core.rollout import step_log_prob
from bpgo.core.sde import Transition
from bpgo.records import Rollout


@dataclass(frozen=True)
class Points:
    """Which samples `rows` `[N]` at which of their trained columns, and at which `steps` `[N]`.

    Groups have `group_size` samples.
    """

    rows: Tensor
    columns: Tensor
    steps: Tensor
    group_size: int

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class StepLoss:
    """What a loss says of N rows.

    `rows` `[N]`; `ratio` `[N]` or `[N, *sites]`, None where there is none; `clipped`, like `ratio`,
    where the clip range holds it; `scalars` are logged, averaged over the update; `held` `[N]`: how
    much the regulariser counts in each row (None: alike).
    """

    rows: Tensor
    ratio: Tensor | None = None
    clipped: Tensor | None = None
    scalars: dict[str, Tensor] = field(default_factory=dict)
    held: Tensor | None = None


class Seen:
    """N trained points under the policy as it is now.

    For every arm: `velocity` and `latents` `[N, ...]`, `sigma` `[N]`, `sample` `[N, ...]` (the
    finished one), `others`: the velocities of further policies by name, without gradient.
    A stored step also has `sigma_next`, `next_latents`, `old_log_probs`, `step`, `log_ratio`,
    `ratio`, `old_mean`; a sample that was noised again has `noise`. Rows of an arm whose loss
    compares a group come group by group, all G of each.
    """

    def __init__(
        self,
        rollout: Rollout,
        points: Points,
        transition_of: Callable[[Seen, Tensor], Transition],
        kernel: str | None,
        noised_again: bool = False,
        noise_scale: Tensor | None = None,
    ) -> None:
        self.points, self.noised_again = points, noised_again
        self._rollout, self._transition_of, self._kernel = rollout, transition_of, kernel
        self._noise_scale = noise_scale
        rows, steps = points.rows, points.steps
        self.sigma = rollout.sigmas[steps]
        self.sigma_next = rollout.sigmas[steps + 1]
        self.sigma_max = rollout.sigmas[1]
        self.velocity: Tensor
        self.others: Mapping[str, Tensor] = {}
        if noised_again:
            level = self.sigma.view(-1, *[1] * (self.sample.ndim - 1))
            self.latents = (1 - level) * self.sample + level * self.noise
        else:
            self.latents = rollout.latents[rows, steps]

    def __len__(self) -> int:
        return len(self.points)

    def by_group(self, values: Tensor) -> Tensor:
        """`[N]` as `[N / G, G]`, for an arm whose loss compares the samples of a group."""
        return values.view(-1, self.points.group_size)

    @cached_property
    def sample(self) -> Tensor:
        """The finished samples x0 `[N, ...]`."""
        return self._rollout.latents[self.points.rows, -1]

    @cached_property
    def noise(self) -> Tensor:
        """Standard normal `[N, ...]`: what a step drew, or what a sample was mixed with."""
        source, column = (
            (self._rollout.fresh, self.points.columns)
            if self.noised_again
            else (self._rollout.noise, self.points.steps + 1)
        )
        assert source is not None
        return source[self.points.rows, column].to(self._rollout.latents.device)

    @cached_property
    def next_latents(self) -> Tensor:
        """Where the stored step went `[N, ...]`."""
        return self._rollout.latents[self.points.rows, self.points.steps + 1]

    @cached_property
    def old_log_probs(self) -> Tensor:
        """Of the stored step, under the policy that drew it, `[N]` or `[N, *sites]`."""
        return self._rollout.log_probs[self.points.rows, self.points.steps]

    @cached_property
    def step(self) -> Transition:
        """The stored step as the policy would take it now."""
        return self._transition_of(self, self.velocity)

    def step_of(self, name: str) -> Transition:
        """The stored step as a further policy would take it."""
        return self._transition_of(self, self.others[name])

    @cached_property
    def old_mean(self) -> Tensor:
        """The mean `[N, ...]` of the step under the policy that drew it: x' less the noise."""
        noise = self.noise
        if self._noise_scale is not None:
            scale = self._noise_scale.to(noise.device)[self.points.steps]
            noise = noise * scale.view(-1, *[1] * (noise.ndim - 1))
        return self.next_latents - self.step.std.detach() * noise

    @cached_property
    def log_ratio(self) -> Tensor:
        """The difference of log p to that of the policy that drew, `[N]` or `[N, *sites]`."""
        assert self._kernel is not None
        channel = self._rollout.channel
        log_prob = step_log_prob(self._kernel, self.next_latents, self.step, channel)
        return log_prob - self.old_log_probs

    @cached_property
    def ratio(self) -> Tensor:
        """p_new / p_old, `[N]` or `[N, *sites]`; exactly 1 before the first optimizer step."""
        return self.log_ratio.exp()
