"""Trust where an ensemble agrees on the order of a group's samples (our rule).

w_i = max(0, mean over pairs of members of their Spearman rank correlation in group i), divided by
the batch's mean. Range [0, P], mean 1; where no group has agreement, 1 everywhere. Members are the
parts of the training reward, whatever their weights in it.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Literal

from bpgo.core.trust import Reads, Trust, Trusted, TrustSettings
from bpgo.records import GroupRewards
from bpgo.trust.measures import mean_one, members, spearman

if TYPE_CHECKING:
    from torch import Generator


class AgreementSettings(TrustSettings):
    """Keys of a rule with `rule: agreement`."""

    rule: Literal["agreement"] = "agreement"

    def reads(self) -> set[Reads]:
        """The members."""
        return {"members"}


class Agreement(Trust):
    """Keeps no state."""

    Settings = AgreementSettings

    def judge(
        self,
        groups: GroupRewards,
        generator: Generator,  # noqa: ARG002 (nothing is drawn)
    ) -> Trusted:
        """Weights `[P]`. Column `agreement`: the mean correlation itself, in [-1, 1].

        A constant group of a member has correlation 0 with all others.

        Raises:
            UserError: fewer than two members.
        """
        import torch

        pairs = combinations(members(groups, "agreement").values(), 2)
        agreement = torch.stack([spearman(left, right) for left, right in pairs]).mean(dim=0)
        weights = mean_one(agreement.clamp(min=0))
        return Trusted(weights, columns={"weight": weights, "agreement": agreement})


TRUST = Agreement
