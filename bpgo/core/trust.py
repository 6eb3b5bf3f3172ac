"""A trust rule: how far to believe the rewards of a group or a sample. A part that any arm carries.

A rule sees groups and answers; it knows no kernel and no loss. The arm that carries it turns the
answer into advantages (`bpgo.core.arm.Arm.advantages`). Rules are in `bpgo/trust`, one file each.

Shapes: P groups, G samples a group. Importing this file does not import torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, SerializeAsAny

from bpgo import registry
from bpgo.config.fields import Strict
from bpgo.errors import suggest
from bpgo.records import GroupRewards

if TYPE_CHECKING:
    from torch import Generator, Tensor

# What a rule may do to an arm's objective. `weights`: one for each group; `sample_weights`: one for
# each sample; `rewards`: others take the place of the given ones, or further terms are made of
# others; `gate`: the regulariser holds some samples only.
Effect = Literal["weights", "sample_weights", "rewards", "gate"]
# What a rule reads beside the rewards. `members`: the parts of a sum of rewards, two or more;
# `ambiguity`: how open each prompt is; `reference`: a reward that no arm may see (the oracle).
Reads = Literal["members", "ambiguity", "reference", "calibration"]


class TrustSettings(Strict):
    """What every rule states; a rule's file adds keys of its own by a subclass."""

    rule: str  # key of bpgo.registry.TRUST

    def effects(self) -> set[Effect]:
        """What the rule does to the objective, with these settings."""
        return {"weights"}

    def reads(self) -> set[Reads]:
        """What must be known beside the rewards."""
        return set()

    def named_members(self) -> list[str]:
        """Parts of the training reward that the rule names."""
        return []

    def reference_rewards(self) -> list[str]:
        """Diagnostics that the rule reads; an arm with any is for analysis only."""
        return []


def _of_its_rule(value: Any) -> Any:
    """A mapping as the settings of the rule that it names."""
    if not isinstance(value, dict):
        return value
    rule = value.get("rule")
    if not isinstance(rule, str) or rule not in registry.TRUST:
        raise ValueError(
            f"rule: {rule!r} is not a registered trust rule."
            f"{suggest(str(rule), registry.TRUST)} Known: {', '.join(sorted(registry.TRUST))}"
        )
    return registry.load_trust_class(rule).Settings.model_validate(value)


# A field that holds any rule's settings, and takes them as a mapping too.
AnyTrustSettings = Annotated[SerializeAsAny[TrustSettings], BeforeValidator(_of_its_rule)]


@dataclass(frozen=True)
class TrustTerm:
    """A further term of the objective: `weight * sum_i scale_i L(advantages of rewards_i)`.

    `rewards` `[P, G]`, and `scale` `[P]` of each group (None: 1 everywhere).
    """

    weight: float
    rewards: Tensor
    scale: Tensor | None = None


@dataclass(frozen=True)
class Trusted:
    """A rule's answer; what is None changes nothing.

    `weights` `[P]` or `[P, G]` of the loss on the rewards; `rewards` `[P, G]` in place of the given
    ones; `terms` beside it; `gate` `[P, G]`, True for samples that the regulariser holds.
    `columns` (`[P]` by name) and `scalars` are logged.
    """

    weights: Tensor | None = None
    rewards: Tensor | None = None
    terms: list[TrustTerm] = field(default_factory=list)
    gate: Tensor | None = None
    columns: dict[str, Tensor] = field(default_factory=dict)
    scalars: dict[str, float] = field(default_factory=dict)


class Trust:
    """A rule, with what it remembers. A subclass is named `TRUST` in its file."""

    Settings: ClassVar[type[TrustSettings]] = TrustSettings

    def __init__(self, settings: TrustSettings) -> None:
        self.settings = settings

    def judge(self, groups: GroupRewards, generator: Generator) -> Trusted:
        """How far to trust one batch of groups; then learn from the batch.

        `generator` is the rule's own: what it draws shifts no other random number of the run.
        """
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """What the rule remembers between iterations, as JSON takes it."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`."""
        if state:
            raise ValueError(f"{type(self).__name__} keeps no state, but got {sorted(state)}")


def make_trust(settings: TrustSettings) -> Trust:
    """The rule that the settings name, as it is before the first batch."""
    made: Trust = registry.load_trust_class(settings.rule)(settings)
    return made
