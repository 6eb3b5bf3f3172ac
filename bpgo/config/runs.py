"""A training run, and the sampler of a calibration, named."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Run:
    """Experiment x arm x seed."""

    experiment: str
    arm: str
    seed: int

    @property
    def folder(self) -> str:
        """`experiment/arm/seed_1`, below `runs`, `samples` or `scores`."""
        return f"{self.experiment}/{self.arm}/seed_{self.seed}"


@dataclass(frozen=True)
class Sampler:
    """How a calibration's samples are drawn: an SDE kernel, its noise level (eta), its steps.

    `stochastic_steps` is how many steps, from the first, have noise; None: all before the tail.
    """

    kernel: str
    noise_level: float
    stochastic_steps: int | None = None

    @property
    def name(self) -> str:
        """`dance_0p3`, or `dance_0p3_2` with noise in two steps: a folder below `draws`."""
        steps = "" if self.stochastic_steps is None else f"_{self.stochastic_steps}"
        return f"{self.kernel}_{in_a_name(repr(self.noise_level))}{steps}"

    def noisy_steps(self, steps: int, tail: int) -> int:
        """How many of so many steps, of which the last `tail` have no noise, have noise."""
        if self.kernel == "ode":
            return 0
        return steps - tail if self.stochastic_steps is None else self.stochastic_steps


def in_a_name(number: str) -> str:
    """A number as a part of a file's or an arm's name: `0p1` for `0.1`."""
    return number.replace(".", "p").replace("-", "m").replace("+", "")
