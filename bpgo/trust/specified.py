"""Trust in prompts that say what they want (our rule).

w_i = 1 + alpha (1 - 2 a_i), with a_i how open prompt i is: 0 specified, 1 open. Range [1 - alpha,
1 + alpha] as RAS has it, falling with a, not normalised; 1 where nobody knows (NaN).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from bpgo.config.fields import Fraction
from bpgo.core.trust import Reads, Trust, Trusted, TrustSettings
from bpgo.errors import UserError
from bpgo.records import GroupRewards

if TYPE_CHECKING:
    from torch import Generator


class SpecifiedSettings(TrustSettings):
    """Keys of a rule with `rule: specified`."""

    rule: Literal["specified"] = "specified"
    alpha: Fraction  # weights lie in [1 - alpha, 1 + alpha]

    def reads(self) -> set[Reads]:
        """How open the prompts are."""
        return {"ambiguity"}


class Specified(Trust):
    """Keeps no state."""

    Settings = SpecifiedSettings
    settings: SpecifiedSettings

    def judge(
        self,
        groups: GroupRewards,
        generator: Generator,  # noqa: ARG002 (nothing is drawn)
    ) -> Trusted:
        """Weights `[P]`; `UserError` if the batch does not say how open its prompts are."""
        if groups.ambiguity is None:
            raise UserError("trust rule 'specified' needs prompts that say how ambiguous they are")
        weights = 1 + self.settings.alpha * (1 - 2 * groups.ambiguity.double())
        weights = weights.masked_fill(weights.isnan(), 1.0).to(groups.rewards.device)
        return Trusted(weights, columns={"weight": weights})


TRUST = Specified
