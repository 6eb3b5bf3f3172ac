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
    """How a calibration's samples are drawn: an SDE kernel and its noise level (eta)."""

    kernel: str
    noise_level: float

    @property
    def name(self) -> str:
        """`dance_0p3`, a folder below `draws`."""
        return f"{self.kernel}_{in_a_name(repr(self.noise_level))}"


def in_a_name(number: str) -> str:
    """A number as a part of a file's or an arm's name: `0p1` for `0.1`."""
    return number.replace(".", "p").replace("-", "m").replace("+", "")
