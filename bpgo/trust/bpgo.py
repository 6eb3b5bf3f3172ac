"""BPGO as an arm: prior -> CRT -> RAS -> objective (arXiv 2511.18919).

Shapes: P groups, G samples a group. Importing this file does not import torch.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from bpgo.core.advantage import group_advantage
from bpgo.core.arm import Arm
from bpgo.errors import UserError
from bpgo.method.settings import BpgoSettings
from bpgo.records import AdvantageResult, Calibration, GroupRewards

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from bpgo.method.crt import Transformed

log = logging.getLogger(__name__)


class Bpgo(Arm):
    """GRPO whose groups are weighted by RAS and whose rewards are contrasted by CRT.

    L_GRPO(R) is always GRPO on the raw rewards; `reward_scale` concerns prior, RAS and CRT only.
    So with alpha = 0 and varsigma = 0 the arm is GRPO to the bit.
    """

    Settings = BpgoSettings
    settings: BpgoSettings

    def __init__(self, settings: BpgoSettings) -> None:
        from bpgo.method.prior import make_prior

        super().__init__(settings)
        self.prior = make_prior(settings)
        self._warned = False

    def advantages(self, groups: GroupRewards, generator: Generator) -> AdvantageResult:
        """The objective's terms for one batch, then the prior learns from the batch.

        Columns: `prior` (the reward's own units, NaN where none) and `weight` (RAS). Scalars count
        the samples that a rule of `bpgo.method.crt` or `_in_units` touched, and the groups without
        prior. Only `shuffle_weights` draws from `generator`.

        Raises:
            UserError: if the prior, the scale or the offset needs a calibration and there is none;
                if a reward is negative under `negative_rewards: error`.
        """
        from bpgo.method.objective import objective

        settings = self.settings
        anchor = self.prior.get(groups).to(groups.rewards.device)
        without = anchor.isnan()
        self._warn(without, groups)
        rewards, prior, scalars = self._in_units(groups, anchor)
        transformed = None
        if settings.crt != "off" and settings.varsigma > 0:
            found = self._transform(rewards, prior)
            # A group without prior keeps its rewards, and so its plain advantage.
            transformed = found.rewards.where(~without[:, None], rewards)
            scalars["crt_non_monotone"] = found.non_monotone
            scalars["crt_clamped"] = found.clamped
            scalars["crt_floored"] = scalars.get("crt_floored", 0) + found.floored
        weight = self._weight(rewards, transformed, prior, generator)
        plain = group_advantage(groups.rewards, settings.advantage)
        terms = objective(
            plain,
            self._contrasted(plain, transformed, without),
            weight,
            settings.varsigma,
            settings.combine,
            settings.ras_applies_to,
        )
        self.prior.update(groups)
        scalars["groups_without_prior"] = int(without.sum())
        columns = {"prior": anchor, "weight": weight}
        return AdvantageResult(terms, columns, {name: float(n) for name, n in scalars.items()})

    def _in_units(
        self, groups: GroupRewards, anchor: Tensor
    ) -> tuple[Tensor, Tensor, dict[str, int]]:
        """Rewards `[P, G]` and prior `[P]` in float64 and in the units of the settings.

        `standardized` is (R - mean) / std of the base policy. For the released CRT one constant,
        minus the base policy's lowest reward, lifts rewards and prior of the whole run above 0;
        what is still negative becomes 0.
        """
        settings, rewards = self.settings, groups.rewards.double()
        shift, scale = 0.0, 1.0
        if settings.reward_scale == "standardized":
            base = self._calibration(groups, "reward_scale 'standardized'")
            if not base.std > 0:
                raise UserError(f"calibration.std is {base.std}: rewards cannot be standardized")
            shift, scale = base.mean, base.std
        rewards, anchor = (rewards - shift) / scale, (anchor - shift) / scale
        if settings.crt != "released_sigmoid":
            return rewards, anchor, {}
        if settings.negative_rewards == "offset":
            minimum = self._calibration(groups, "negative_rewards 'offset'").minimum
            lowest = (minimum - shift) / scale
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

    def _transform(self, rewards: Tensor, prior: Tensor) -> Transformed:
        from bpgo.method import crt

        settings = self.settings
        if settings.crt == "paper_exp":
            return crt.paper_exp(
                rewards, prior, settings.lambda_, settings.exponent_clamp, settings.below_prior
            )
        return crt.released_sigmoid(
            rewards, prior, settings.a, settings.tau, settings.exponent_clamp
        )

    def _contrasted(
        self, plain: Tensor, transformed: Tensor | None, without: Tensor
    ) -> Tensor | None:
        """Advantages `[P, G]` of the transformed rewards; in a sum, 0 for groups without prior."""
        if transformed is None:
            return None
        advantage = group_advantage(transformed, self.settings.advantage).to(plain.dtype)
        if self.settings.combine == "sum":
            return advantage.masked_fill(without[:, None], 0.0)
        return plain.where(without[:, None], advantage)

    def _weight(
        self, rewards: Tensor, transformed: Tensor | None, prior: Tensor, generator: Generator
    ) -> Tensor:
        """RAS weights `[P]`, float64."""
        import torch

        from bpgo.method import ras

        settings = self.settings
        if settings.ras == "off":
            return torch.ones_like(prior)
        seen = rewards
        if settings.ras_input == "transformed" and transformed is not None:
            seen = transformed
        if settings.ras == "sigmoid":
            weight = ras.sigmoid_weight(seen.mean(dim=1), prior, settings.alpha, settings.k)
        else:
            low, high = settings.weight_range
            reliability = ras.bayes_reliability(seen, prior, settings.prior_variance, (low, high))
            weight = ras.released_scale(reliability, settings.alpha)
        if settings.shuffle_weights:
            weight = weight[torch.randperm(len(weight), generator=generator).to(weight.device)]
        return weight

    def _warn(self, without: Tensor, groups: GroupRewards) -> None:
        """Once a run."""
        if self._warned or not without.any():
            return
        self._warned = True
        prompt = groups.prompt_ids[int(without.int().argmax())]
        log.warning(
            "%d of %d prompts have no prior (first: '%s'): their groups stay plain GRPO",
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


ARM = Bpgo
