"""BPGO as a trust rule: prior -> CRT -> RAS (arXiv 2511.18919).

The arm that carries it trains L = 1/N sum_i ( w_i L_GRPO(R_i) + varsigma L_GRPO(R~_i) ) (Eq. 5, 6).
The paper and the authors' released code differ; both are here as switches.

Shapes: P groups, G samples a group. Importing this file does not import torch.
"""

from __future__ import annotations

import logging
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from bpgo.config.fields import NonNegative, Number, Positive
from bpgo.core.trust import Effect, Reads, Trust, Trusted, TrustSettings, TrustTerm
from bpgo.errors import UserError
from bpgo.records import Calibration, GroupRewards

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from bpgo.trust.crt import Transformed
    from bpgo.trust.prior import Prior

log = logging.getLogger(__name__)


def _off(value: Any) -> Any:
    """YAML 1.1 reads `off` as false."""
    return "off" if value is False else value


Ras = Annotated[Literal["sigmoid", "bayes", "off"], BeforeValidator(_off)]
Crt = Annotated[Literal["paper_exp", "released_sigmoid", "off"], BeforeValidator(_off)]


class BpgoSettings(TrustSettings):
    """Keys of a rule with `rule: bpgo`."""

    rule: Literal["bpgo"] = "bpgo"

    # Forms

    ras: Ras = "sigmoid"  # sigmoid: paper Eq. 2; bayes: as released
    crt: Crt = "paper_exp"  # paper_exp: paper Eq. 4; released_sigmoid: as released
    # How RAS and CRT come together. sum: paper Eq. 5; overwrite: as released.
    combine: Literal["sum", "overwrite"] = "sum"
    ras_input: Literal["raw", "transformed"] = "raw"  # transformed: RAS sees the rewards after CRT
    ras_applies_to: Literal["first", "both"] = "first"  # terms of the sum that RAS weighs

    # Units of prior, RAS and CRT. raw: the reward's own; standardized: (R - mean) / std of the base
    # policy; published: mapped linearly from that mean and std to scale_mean and scale_std.
    reward_scale: Literal["raw", "standardized", "published"] = "standardized"
    scale_mean: Number | None = None  # mean of a published reward, for reward_scale: published
    scale_std: Positive | None = None  # and its standard deviation

    # The anchor that rewards are held against, in the reward's own units.
    prior: Literal["sft_mean", "moving_average", "first_frame", "fixed"] = "moving_average"
    momentum: Annotated[Number, Field(ge=0, lt=1)] = 0.9  # of the moving average
    fixed_prior: Number | None = None  # required by, and only for, prior: fixed
    # What prior: first_frame adds to a still's reward. base_mean: the mean of the base policy's
    # clips less the mean of the first frames, both from the calibration.
    first_frame_offset: Literal["base_mean", "none"] = "base_mean"

    # RAS

    alpha: NonNegative = 0.5  # sigmoid: w in [1 - alpha, 1 + alpha]
    k: NonNegative = 2.0  # sharpness of the sigmoid, 1 / base standard deviation in every scale
    prior_variance: Positive = 1.0  # ras: bayes, in squared units of reward_scale
    # ras: bayes: the smallest and the largest weight.
    weight_range: Annotated[list[NonNegative], Field(min_length=2, max_length=2)] = Field(
        default=[0.5, 1.5]
    )

    # CRT, in the units of reward_scale

    varsigma: NonNegative = 0.5  # weight of the CRT term; 0 switches CRT off, however combined
    lambda_: NonNegative = Field(default=1.0, alias="lambda")  # contrast of paper_exp, Eq. 4
    a: NonNegative = 50.0  # slope of released_sigmoid
    tau: Positive = 5.0  # temperature of released_sigmoid
    exponent_clamp: Positive = 30.0  # largest exponent in exp
    # What paper_exp does below its turning point.
    below_prior: Literal["published", "floor"] = "published"
    # What released_sigmoid does with negative rewards.
    negative_rewards: Literal["published", "offset", "error"] = "offset"

    @model_validator(mode="after")
    def _check(self) -> BpgoSettings:
        if (self.prior == "fixed") != (self.fixed_prior is not None):
            raise ValueError("fixed_prior must be given with prior 'fixed', and only then")
        if self.ras == "sigmoid" and self.alpha > 1:
            raise ValueError("alpha above 1 makes weights negative with ras 'sigmoid'")
        if self.weight_range[0] > self.weight_range[1]:
            raise ValueError("weight_range must be [lowest, highest]")
        if self.reward_scale == "published" and None in (self.scale_mean, self.scale_std):
            raise ValueError("reward_scale 'published' needs scale_mean and scale_std")
        return self

    @property
    def contrasts(self) -> bool:
        """Whether CRT is on."""
        return self.crt != "off" and self.varsigma > 0

    def effects(self) -> set[Effect]:
        """RAS gives weights, CRT other rewards."""
        found: set[Effect] = set()
        if self.ras != "off":
            found.add("weights")
        if self.contrasts:
            found.add("rewards")
        return found

    def reads(self) -> set[Reads]:
        """The calibration, unless all units are given."""
        lifted = self.contrasts and self.crt == "released_sigmoid"
        needed = (
            self.reward_scale != "raw"
            or self.ras == "sigmoid"
            or self.prior == "sft_mean"
            or (self.prior == "first_frame" and self.first_frame_offset == "base_mean")
            or (lifted and self.negative_rewards == "offset")
        )
        return {"calibration"} if needed else set()


class Bpgo(Trust):
    """Groups are weighted by RAS, [1 - alpha, 1 + alpha] in the paper's form, not normalised.

    CRT makes a further term (`combine: sum`) or takes the rewards' place (`overwrite`).
    `reward_scale` concerns prior, RAS and CRT only: the first term's rewards stay raw. So with
    alpha = 0 and varsigma = 0 an arm is to the bit what it is without the rule.
    """

    Settings = BpgoSettings
    settings: BpgoSettings

    def __init__(self, settings: BpgoSettings) -> None:
        super().__init__(settings)
        self._warned = False

    @cached_property
    def prior(self) -> Prior:
        """The estimator of the anchor; made when it is first asked, since it imports torch."""
        from bpgo.trust.prior import make_prior

        return make_prior(self.settings)

    def judge(
        self,
        groups: GroupRewards,
        generator: Generator,  # noqa: ARG002 (nothing is drawn)
    ) -> Trusted:
        """RAS weights and CRT rewards of one batch, float64; then the prior learns from the batch.

        A group without prior keeps its rewards and the weight 1. Columns: `prior` (the reward's own
        units, NaN where none) and `weight` (RAS). Scalars count the samples that a rule of
        `bpgo.trust.crt` or `_in_units` touched, and the groups without prior.

        Raises:
            UserError: if the prior, the scale or the offset needs a calibration and there is none;
                if a reward is negative under `negative_rewards: error`.
        """
        settings = self.settings
        anchor = self.prior.get(groups).to(groups.rewards.device)
        without = anchor.isnan()
        self._warn(without, groups)
        rewards, prior, scalars = self._in_units(groups, anchor)
        transformed = None
        if settings.contrasts:
            found = self._transform(rewards, prior)
            transformed = found.rewards.where(~without[:, None], rewards)
            scalars["crt_non_monotone"] = found.non_monotone
            scalars["crt_clamped"] = found.clamped
            scalars["crt_floored"] = scalars.get("crt_floored", 0) + found.floored
        weight = self._weight(groups, rewards, transformed, prior)
        overwritten, terms = None, []
        if transformed is not None and settings.combine == "overwrite":
            overwritten = transformed.where(~without[:, None], groups.rewards.double())
        elif transformed is not None:
            scale = weight if settings.ras_applies_to == "both" else weight.new_ones(weight.shape)
            scale = scale.masked_fill(without, 0.0)
            terms = [TrustTerm(settings.varsigma, transformed, scale)]
        self.prior.update(groups)
        scalars["groups_without_prior"] = int(without.sum())
        return Trusted(
            weight,
            overwritten,
            terms,
            columns={"prior": anchor, "weight": weight},
            scalars={name: float(count) for name, count in scalars.items()},
        )

    def _in_units(
        self, groups: GroupRewards, anchor: Tensor
    ) -> tuple[Tensor, Tensor, dict[str, int]]:
        """Rewards `[P, G]` and prior `[P]` in float64 and in the units of the settings.

        For the released CRT one constant, minus the base policy's lowest reward, lifts rewards and
        prior of the whole run above 0 (`negative_rewards: offset`); what is still negative becomes
        0.
        """
        settings = self.settings
        rewards = self._scaled(groups, groups.rewards.double())
        anchor = self._scaled(groups, anchor)
        if settings.crt != "released_sigmoid":
            return rewards, anchor, {}
        if settings.negative_rewards == "offset":
            base = self._calibration(groups, "negative_rewards 'offset'")
            lowest = self._scaled(groups, rewards.new_tensor(base.minimum))
            rewards, anchor = rewards - lowest, anchor - lowest
            floored = int((rewards < 0).sum())
            return rewards.clamp(min=0), anchor, {"crt_floored": floored}
        negative = int((rewards < 0).sum())
        if negative and settings.negative_rewards == "error":
            raise UserError(
                f"{negative} of {rewards.numel()} rewards are negative, where crt"
                " 'released_sigmoid' turns the order round; set negative_rewards to 'offset', or"
                " to 'published' to accept it"
            )
        return rewards, anchor, {"crt_negative": negative}

    def _scaled(self, groups: GroupRewards, values: Tensor) -> Tensor:
        """Values in the reward's own units, in the units of the settings."""
        settings = self.settings
        if settings.reward_scale == "raw":
            return values
        base = self._calibration(groups, f"reward_scale '{settings.reward_scale}'")
        values = (values - base.mean) / _spread_of(base, "rewards cannot be standardized")
        if settings.reward_scale == "standardized":
            return values
        assert settings.scale_mean is not None  # the settings' own check
        assert settings.scale_std is not None
        return settings.scale_mean + settings.scale_std * values

    def _sharpness(self, groups: GroupRewards) -> float:
        """The setting k is per standard deviation of the base reward; here in the units of RAS."""
        settings = self.settings
        if settings.reward_scale == "standardized":
            return settings.k
        if settings.reward_scale == "published":
            assert settings.scale_std is not None  # the settings' own check
            return settings.k / settings.scale_std
        base = self._calibration(groups, "ras 'sigmoid'")
        return settings.k / _spread_of(base, "k is given per standard deviation")

    def _transform(self, rewards: Tensor, prior: Tensor) -> Transformed:
        from bpgo.trust import crt

        settings = self.settings
        if settings.crt == "paper_exp":
            return crt.paper_exp(
                rewards, prior, settings.lambda_, settings.exponent_clamp, settings.below_prior
            )
        return crt.released_sigmoid(
            rewards, prior, settings.a, settings.tau, settings.exponent_clamp
        )

    def _weight(
        self, groups: GroupRewards, rewards: Tensor, transformed: Tensor | None, prior: Tensor
    ) -> Tensor:
        """RAS weights `[P]`, float64."""
        from bpgo.trust import ras

        settings = self.settings
        if settings.ras == "off":
            return prior.new_ones(prior.shape)
        seen = rewards
        if settings.ras_input == "transformed" and transformed is not None:
            seen = transformed
        if settings.ras == "sigmoid":
            sharpness = self._sharpness(groups)
            return ras.sigmoid_weight(seen.mean(dim=1), prior, settings.alpha, sharpness)
        low, high = settings.weight_range
        reliability = ras.bayes_reliability(seen, prior, settings.prior_variance, (low, high))
        return ras.released_scale(reliability, settings.alpha)

    def _warn(self, without: Tensor, groups: GroupRewards) -> None:
        """Once a run."""
        if self._warned or not without.any():
            return
        self._warned = True
        prompt = groups.prompt_ids[int(without.int().argmax())]
        log.warning(
            "%d of %d prompts have no prior (first: '%s'): their groups keep their rewards and the"
            " weight 1",
            int(without.sum()),
            len(without),
            prompt,
        )

    @staticmethod
    def _calibration(groups: GroupRewards, what: str) -> Calibration:
        if groups.calibration is None:
            raise UserError(f"{what} needs a calibration: run `calibrate` first")
        return groups.calibration

    def state_dict(self) -> dict[str, Any]:
        """The prior's state."""
        return {"prior": self.prior.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`."""
        self.prior.load_state_dict(state["prior"])


def _spread_of(base: Calibration, what: str) -> float:
    if not base.std > 0:
        raise UserError(f"calibration.std is {base.std}: {what}")
    return base.std


TRUST = Bpgo
