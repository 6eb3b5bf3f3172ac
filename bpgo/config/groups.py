"""Which groups of the base policy trust rules are judged on without training."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from bpgo.config.fields import Many, Seed, Strict, each_once


class GroupSettings(Strict):
    """Groups as a training run with each seed would draw them, if nothing were learned."""

    # As of training runs: they decide prompts and noise.
    seeds: Annotated[list[Seed], Field(min_length=1), AfterValidator(each_once)] = Field(
        default=[1, 2]
    )
    iterations: Many = 64  # of each seed; prompts and group size are those of `rollout`
