"""BPGO's switches and numbers. The paper and the authors' released code differ; both are here."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from bpgo.core.arm import ArmSettings
from bpgo.settings import NonNegative, Number, Positive


def _off(value: Any) -> Any:
    """YAML 1.1 reads `off` as false."""
    return "off" if value is False else value


Ras = Annotated[Literal["sigmoid", "bayes", "off"], BeforeValidator(_off)]
Crt = Annotated[Literal["paper_exp", "released_sigmoid", "off"], BeforeValidator(_off)]


class BpgoSettings(ArmSettings):
    """Keys of an arm with `algorithm: bpgo`."""

    # Forms
    ras: Ras = "sigmoid"  # paper Eq. 2, or released
    crt: Crt = "paper_exp"  # paper Eq. 4, or released
    combine: Literal["sum", "overwrite"] = "sum"  # paper Eq. 5, or released
    ras_input: Literal["raw", "transformed"] = "raw"  # transformed: RAS sees the rewards after CRT
    ras_applies_to: Literal["first", "both"] = "first"  # terms of the sum that RAS weighs
    reward_scale: Literal["raw", "standardized"] = "standardized"  # units of all numbers below

    # The prior anchor, in the reward's own units
    prior: Literal["sft_mean", "moving_average", "first_frame", "fixed"] = "moving_average"
    momentum: Annotated[Number, Field(ge=0, lt=1)] = 0.9  # of the moving average
    fixed_prior: Number | None = None  # required by, and only for, prior: fixed

    # RAS
    alpha: NonNegative = 0.5  # sigmoid: w in [1 - alpha, 1 + alpha]
    k: NonNegative = 2.0  # sharpness of the sigmoid, 1 / reward units
    prior_variance: Positive = 1.0  # bayes, reward units squared
    weight_range: Annotated[list[NonNegative], Field(min_length=2, max_length=2)] = Field(
        default=[0.5, 1.5]
    )
    shuffle_weights: bool = False  # control: the batch's weights permuted among its groups

    # CRT
    varsigma: NonNegative = 0.5  # weight of the CRT term; 0 switches CRT off
    lambda_: NonNegative = Field(default=1.0, alias="lambda")  # contrast of paper_exp
    a: NonNegative = 50.0  # slope of released_sigmoid
    tau: Positive = 5.0  # temperature of released_sigmoid, reward units
    exponent_clamp: Positive = 30.0  # largest exponent in exp
    below_prior: Literal["published", "floor"] = "published"  # paper_exp below its turning point
    negative_rewards: Literal["published", "offset", "error"] = "offset"  # released_sigmoid

    @model_validator(mode="after")
    def _check(self) -> BpgoSettings:
        if (self.prior == "fixed") != (self.fixed_prior is not None):
            raise ValueError("fixed_prior must be given with prior 'fixed', and only then")
        if self.ras == "sigmoid" and self.alpha > 1:
            raise ValueError("alpha above 1 makes weights negative with ras 'sigmoid'")
        if self.weight_range[0] > self.weight_range[1]:
            raise ValueError("weight_range must be [lowest, highest]")
        return self
