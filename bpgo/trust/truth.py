"""What rules share that read the truth: a diagnostic, such as the oracle, that no arm may see."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bpgo.config.fields import Name
from bpgo.core.trust import Reads, TrustSettings
from bpgo.errors import UserError, suggest
from bpgo.records import GroupRewards

if TYPE_CHECKING:
    from torch import Tensor


class TruthSettings(TrustSettings):
    """Keys of a rule that reads the truth; for analysis only."""

    reward: Name  # one of the experiment's diagnostics

    def reads(self) -> set[Reads]:
        """A reward that no arm may see."""
        return {"reference"}

    def reference_rewards(self) -> list[str]:
        """The diagnostic that is taken for the truth."""
        return [self.reward]


def truth_of(groups: GroupRewards, name: str) -> Tensor:
    """The diagnostic `[P, G]` float64; `UserError` if it is not given."""
    if name not in groups.reference:
        raise UserError(
            f"trust.reward: '{name}' is not among the experiment's diagnostics."
            f"{suggest(name, groups.reference)}"
        )
    return groups.reference[name].double()
