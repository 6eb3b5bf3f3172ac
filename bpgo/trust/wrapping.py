"""Rules that change the weights of another rule, `of`: the controls.

Shapes: P groups, G samples a group. Importing this file does not import torch.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import model_validator

from bpgo.core.trust import (
    AnyTrustSettings,
    Effect,
    Reads,
    Trust,
    Trusted,
    TrustSettings,
    make_trust,
)
from bpgo.records import GroupRewards

if TYPE_CHECKING:
    from torch import Generator, Tensor

WEIGHTS: set[Effect] = {"weights", "sample_weights"}


class WrappingSettings(TrustSettings):
    """Keys of a rule around another."""

    of: AnyTrustSettings  # the other rule; in YAML a name of config/trust, or a mapping

    @model_validator(mode="after")
    def _weights_alone(self) -> WrappingSettings:
        others = sorted(self.of.effects() - WEIGHTS)
        if others:
            raise ValueError(
                f"of: rule '{self.of.rule}' changes {' and '.join(others)} too; rule '{self.rule}'"
                " is for rules that give weights alone"
            )
        return self

    def effects(self) -> set[Effect]:
        """The other rule's."""
        return self.of.effects()

    def reads(self) -> set[Reads]:
        """What the other rule reads."""
        return self.of.reads()

    def reference_rewards(self) -> list[str]:
        """What the other rule names."""
        return self.of.reference_rewards()


class Wrapping(Trust):
    """A subclass says what becomes of the other rule's weights."""

    Settings: ClassVar[type[TrustSettings]] = WrappingSettings
    settings: WrappingSettings

    def __init__(self, settings: WrappingSettings) -> None:
        super().__init__(settings)
        self.inner = make_trust(settings.of)

    def changed(self, weights: Tensor, generator: Generator) -> Tensor:
        """New weights for `[P]` or `[P, G]` weights."""
        raise NotImplementedError

    def judge(self, groups: GroupRewards, generator: Generator) -> Trusted:
        """The other rule's answer with changed weights; the column `weight` shows the change."""
        answer = self.inner.judge(groups, generator)
        if answer.weights is None:
            return answer
        weights = self.changed(answer.weights, generator)
        column = weights if weights.ndim == 1 else weights.mean(dim=1)
        return replace(answer, weights=weights, columns={**answer.columns, "weight": column})

    def state_dict(self) -> dict[str, Any]:
        """The other rule's state."""
        return {"of": self.inner.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`."""
        self.inner.load_state_dict(state["of"])
