"""Pessimistic rewards from an ensemble (arXiv 2606.09073; the three ensemble rules: 2310.02743).

r~ = -beta ln sum_m p_m exp(-r_m / beta) over the members m, the parts of the training reward, each
times the sum of the parts' weights; p_m is a part's share of that sum. So

- beta to infinity: the mean, which is the training reward itself;
- in between: mean - variance / (2 beta) to second order (exact for normal members);
- beta to 0: the worst member.

r~ takes the rewards' place; there are no weights. It lies between the worst member and the mean.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from bpgo.config.fields import NonNegative
from bpgo.core.trust import Effect, Reads, Trust, Trusted, TrustSettings
from bpgo.errors import UserError
from bpgo.records import GroupRewards
from bpgo.trust.measures import members

if TYPE_CHECKING:
    from torch import Generator, Tensor


class PessimisticSettings(TrustSettings):
    """Keys of a rule with `rule: pessimistic`."""

    rule: Literal["pessimistic"] = "pessimistic"
    beta: NonNegative  # in standard deviations of the base policy's reward; 0: the worst member

    def effects(self) -> set[Effect]:
        """Other rewards."""
        return {"rewards"}

    def reads(self) -> set[Reads]:
        """The members; the unit of beta."""
        return {"members"} if self.beta == 0 else {"members", "calibration"}


def pessimistic_reward(values: Tensor, shares: Tensor, beta: float) -> Tensor:
    """-beta ln sum_m p_m exp(-r_m / beta) of `values` `[M, P, G]`, `shares` p `[M]`: `[P, G]`.

    Centred on the mean before the exponentials, so that neither end loses digits. Members with a
    share of 0 play no part.
    """
    values, shares = values[shares > 0], shares[shares > 0][:, None, None]
    if beta == 0:
        return values.amin(dim=0)
    mean = (shares * values).sum(dim=0)
    return mean - beta * (shares.log() - (values - mean) / beta).logsumexp(dim=0)


class Pessimistic(Trust):
    """Keeps no state."""

    Settings = PessimisticSettings
    settings: PessimisticSettings

    def judge(
        self,
        groups: GroupRewards,
        generator: Generator,  # noqa: ARG002 (nothing is drawn)
    ) -> Trusted:
        """Rewards `[P, G]` float64. Column `disagreement`: mean over samples of the members' std.

        Raises:
            UserError: fewer than two members, a negative weight of a member, or no calibration.
        """
        import torch

        parts = members(groups, "pessimistic")
        weights = torch.tensor(
            [groups.part_weights.get(name, 1.0) for name in parts], dtype=torch.float64
        )
        if (weights < 0).any() or not weights.any():
            raise UserError(
                f"trust rule 'pessimistic' needs weights of at least 0, not all 0, in the training"
                f" reward's sum, not {dict(zip(parts, weights.tolist(), strict=True))}"
            )
        total = weights.sum()
        values = total * torch.stack(list(parts.values()))
        shares = (weights / total).to(values.device)
        found = pessimistic_reward(values, shares, self.settings.beta * self._unit(groups))
        mean = (shares[:, None, None] * values).sum(dim=0)
        variance = (shares[:, None, None] * (values - mean).square()).sum(dim=0)
        return Trusted(rewards=found, columns={"disagreement": variance.sqrt().mean(dim=1)})

    def _unit(self, groups: GroupRewards) -> float:
        """One standard deviation of the base policy's reward."""
        if self.settings.beta == 0:
            return 1.0
        if groups.calibration is None or not groups.calibration.std > 0:
            raise UserError(
                "trust rule 'pessimistic' needs a calibration with a standard deviation above 0:"
                " beta is in its units"
            )
        return groups.calibration.std


TRUST = Pessimistic
