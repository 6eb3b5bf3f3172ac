"""Arms that a configuration makes of others: a setting over values, or settings drawn."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from bpgo.config.fields import DOTTED, Count, Name, Number, Seed, Strict, Value, each_once
from bpgo.config.runs import in_a_name

Dotted = Annotated[str, Field(pattern=DOTTED)]  # dots go down
LEARNING_RATE = "learning_rate"  # a range's key that is `training`'s, and no setting of an arm
# Blocks of a configuration whose settings one arm may have for itself, in a sweep.
BLOCKS = ("training", "rollout", "model")
DIGITS = 3  # of a drawn number: more would say nothing


class SweepSettings(Strict):
    """One setting of one arm over several values (an ablation table)."""

    experiment: Name  # that the arm belongs to
    arm: Name  # whose setting changes
    # Key, with dots: of the arm's file, such as trust.alpha, or of the configuration, such as
    # training.learning_rate, rollout.group_size or model.lora.rank.
    setting: Dotted
    # Each makes a further arm; the arm's own value needs none.
    values: Annotated[list[Value], Field(min_length=1), AfterValidator(each_once)]

    @property
    def block(self) -> str | None:
        """The configuration's block that has the setting; None: the arm has it."""
        first = self.setting.partition(".")[0]
        return first if first in BLOCKS else None

    @property
    def inside(self) -> str:
        """The setting's key in its block, or in the arm's file."""
        return self.setting.partition(".")[2] if self.block else self.setting

    @property
    def word(self) -> str:
        """The setting's last word."""
        return self.setting.rsplit(".", 1)[-1]

    def arm_at(self, value: Any) -> str:
        """The arm's name at one value: `bpgo_ras_alpha_0p1`."""
        name = in_a_name(value_text(value)).lower()
        return f"{self.arm}_{self.word}_{re.sub('[^a-z0-9_]', '_', name)}"


def value_text(value: Any) -> str:
    """A sweep's value as tables show it: `0.1`, `steps`, `true`."""
    if isinstance(value, (bool, str)):
        return str(value).lower() if isinstance(value, bool) else value
    return f"{value:g}"


def swept_by(sweeps: dict[str, SweepSettings], arm: str) -> tuple[SweepSettings, Any] | None:
    """The sweep that makes an arm, with the arm's value; None for one that none makes."""
    for sweep in sweeps.values():
        for value in sweep.values:
            if sweep.arm_at(value) == arm:
                return sweep, value
    return None


def set_at(values: dict[str, Any], dotted: str, value: Any) -> dict[str, Any]:
    """`values` with `value` where the dotted key leads.

    Raises:
        KeyError: with the part of the key that leads to no mapping.
    """
    first, _, rest = dotted.partition(".")
    if not rest:
        return {**values, first: value}
    if not isinstance(values.get(first), dict):
        raise KeyError(first)
    return {**values, first: set_at(values[first], rest, value)}


Bounds = Annotated[list[Number], Field(min_length=2, max_length=2)]


class Range(Strict):
    """Where a setting is drawn from: between two bounds, or among some values; one of the three."""

    log: Bounds | None = None  # bounds, uniform in the logarithm
    linear: Bounds | None = None  # bounds, uniform
    # Values, each as likely as the others.
    choice: Annotated[list[Any], Field(min_length=2), AfterValidator(each_once)] | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Range:
        given = [name for name in ("log", "linear", "choice") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"must have one of log, linear and choice, not {given or 'none'}")
        bounds = self.log or self.linear
        if bounds and not bounds[0] < bounds[1]:
            raise ValueError(f"{bounds} is empty: the first bound must be below the second")
        if self.log and self.log[0] <= 0:
            raise ValueError(f"{self.log} has no logarithm: bounds of log must be above 0")
        return self

    def ends(self) -> list[Any]:
        """The values that must be allowed: both bounds, or every choice."""
        found: list[Any] = self.log or self.linear or self.choice or []
        return found

    def at(self, share: float) -> Any:
        """The value at a share in [0, 1) of the way; numbers have three digits."""
        if self.choice is not None:
            return self.choice[int(share * len(self.choice))]
        low, high = self.ends()
        value = low * (high / low) ** share if self.log else low + share * (high - low)
        return min(max(float(f"{value:.{DIGITS}g}"), low), high)


class TuneSettings(Strict):
    """An equally sized random search for every arm of an experiment (`snakemake tune`)."""

    experiment: Name  # whose arms are tuned
    candidates: Count  # drawn for each arm, beside its file as it stands
    seed: Seed = 0  # of the drawing
    # Files whose seeds are reported, relative to the configuration's: none of them may tune.
    reported_by: Annotated[list[str], Field(min_length=1)]
    ranges: dict[Name, dict[Dotted, Range]]  # by arm, by its setting, or learning_rate

    def names(self, arm: str) -> list[str]:
        """The arm as it stands, then its candidates: `grpo`, `grpo_try_01`."""
        return [arm, *(f"{arm}_try_{number:02d}" for number in range(1, self.candidates + 1))]
