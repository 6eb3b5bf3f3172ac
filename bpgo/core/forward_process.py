"""The family of forward processes: samples are noised again, and no log-probability is needed.

The rollout is the plain ODE. A trained point is x_t = (1 - t) x0 + t eps of a finished sample x0,
fresh noise eps and a noise level t of the sampler's schedule; the velocity's target is eps - x0.

Shapes: B samples, K trained points a sample, N rows (a row is one trained point). Importing this
file does not import torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from bpgo.config.fields import Fraction
from bpgo.config.settings import RolloutSettings
from bpgo.core.arm import BASE, Arm, ArmSettings
from bpgo.errors import UserError

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from bpgo.core.seen import Seen


class ForwardProcessSettings(ArmSettings):
    """What an arm without log-probabilities states: no kernel, no noise level, no clip range."""

    skipped_levels: Annotated[int, Field(ge=0)]  # so many of the noisiest are never trained
    level_fraction: Fraction  # share of the schedule, from its start, that may be trained
    trained_fraction: Fraction  # share of the noise levels that may be trained that is
    # Own levels for each sample, the same for all, or the same, one from each part of the schedule.
    level_selection: Literal["per_sample", "shared", "stratified"]

    @model_validator(mode="after")
    def _own_starts(self) -> ForwardProcessSettings:
        if self.shared_initial_noise:
            raise ValueError(
                "shared_initial_noise: the rollout draws no noise after the start, so a group that"
                " shares its start is one sample G times: set it to false"
            )
        return self


class BoundedSettings(ForwardProcessSettings):
    """Of a loss that reads an advantage as a share of the largest one."""

    @model_validator(mode="after")
    def _needs_a_clip(self) -> BoundedSettings:
        if self.advantage.clip is None:
            raise ValueError("advantage.clip: the largest advantage is the one with r = 1: set it")
        return self

    @property
    def largest(self) -> float:
        """The largest advantage, c."""
        assert self.advantage.clip is not None
        return self.advantage.clip

    def wanted(self, advantage: Tensor) -> Tensor:
        """How far a sample is wanted: r = (A / c + 1) / 2 in [0, 1]."""
        return ((advantage / self.largest + 1) / 2).clamp(0, 1)


class ForwardProcess(Arm):
    """ODE rollouts, samples noised again; a subclass states its loss."""

    Settings: ClassVar[type[ArmSettings]] = ForwardProcessSettings
    settings: ForwardProcessSettings
    noised_again: ClassVar[bool] = True
    idle_without_advantage: ClassVar[bool] = False
    compared: ClassVar[tuple[str, ...]] = ()  # the further policies that the loss asks

    def others(self) -> list[str]:
        """Those, and the base for the regulariser."""
        return [*self.compared, *super().others()]

    @property
    def mixes_steps(self) -> bool:
        """Where each sample has its own."""
        return self.settings.level_selection == "per_sample"

    def stochastic_steps(
        self,
        sizes: RolloutSettings,  # noqa: ARG002
        iteration: int,  # noqa: ARG002
        generator: Generator,  # noqa: ARG002
    ) -> list[int]:
        """None."""
        return []

    def trained_count(self, sizes: RolloutSettings) -> int:
        """K = int(trainable noise levels * trained_fraction); `UserError` if that is 0."""
        count = self.count_of(len(self.trainable(sizes, [])))
        if count < 1:
            raise UserError(
                f"trained_fraction: {self.settings.trained_fraction:g} of the"
                f" {len(self.trainable(sizes, []))} noise levels that may be trained leaves none"
                f" (rollout.steps {sizes.steps}, skipped_levels {self.settings.skipped_levels},"
                f" level_fraction {self.settings.level_fraction:g})"
            )
        return count

    def count_of(self, candidates: int) -> int:
        """K of so many candidate noise levels."""
        return int(candidates * self.settings.trained_fraction)

    def trainable(
        self,
        sizes: RolloutSettings,
        stochastic: list[int],  # noqa: ARG002
    ) -> list[int]:
        """The noise levels of the schedule's first part, without the noisiest."""
        last = int(sizes.steps * self.settings.level_fraction)
        return list(range(self.settings.skipped_levels, last))

    def trained_steps(self, candidates: list[int], batch: int, generator: Generator) -> Tensor:
        """Which of the candidate levels each sample trains `[B, K]`.

        The first K of a permutation, its own or the same for all; or for all the same, one from
        each of K parts. Every selection draws the same numbers from `generator`.
        """
        import torch

        count, most = self.count_of(len(candidates)), len(candidates)
        draws = torch.rand(batch, most, generator=generator)
        if self.settings.level_selection == "stratified":
            bounds = torch.arange(count + 1) * most // count
            place = (draws[0, :count] * bounds.diff()).long()
            return torch.tensor(candidates)[bounds[:-1] + place].expand(batch, -1)
        if self.settings.level_selection == "shared":
            draws = draws[:1].expand(batch, -1)
        return torch.tensor(candidates)[draws.argsort(dim=1)[:, :count]]

    def regulariser(self, seen: Seen) -> Tensor:
        """The squared distance of the velocity to the base policy's, `[N]`."""
        return self.distance(seen, BASE)

    def distance(self, seen: Seen, name: str) -> Tensor:
        """The squared distance of the velocity to a further policy's, `[N]`."""
        return mean_square((seen.velocity - seen.others[name]).flatten(1))


def rising(start: int, first: float, rate: float, most: float) -> Callable[[int], float]:
    """How much of itself an average keeps after n optimizer steps (see `Average`).

    `first` until n = `start`, from there on `rate` more with each step, and `most` at most.
    """
    return lambda n: min(first + rate * max(n - start, 0), most)


def matching_error(seen: Seen, velocity: Tensor, of_own_size: bool = False) -> Tensor:
    """The flow matching loss of a velocity, the mean of (v - (eps - x0))^2, `[N]`."""
    return mean_square((velocity - (seen.noise - seen.sample)).flatten(1), of_own_size)


def mean_square(error: Tensor, of_own_size: bool = False) -> Tensor:
    """The mean of the squares of `[N, D]`, `[N]`.

    `of_own_size`: divided by the mean size, which has no gradient (DiffusionNFT, CRD).
    """
    squared = error.square().mean(1)
    return squared / error.detach().abs().mean(1).clamp(min=1e-5) if of_own_size else squared
