"""DDPO (arXiv 2305.13301; kvablack/ddpo-pytorch, `scripts/train.py`).

Differs from `grpo` in its advantages: each prompt's mean and standard deviation are those of its
last rewards, of earlier iterations too, and while there are too few the batch's. Its sampler is
DDIM's, here as a kernel of a flow.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import model_validator

from bpgo.core.advantage import PromptTracker, TrackerSettings
from bpgo.core.arm import ArmSettings
from bpgo.core.policy_gradient import PolicyGradient, PolicyGradientSettings
from bpgo.core.trust import Effect
from bpgo.records import GroupRewards, WeightedAdvantage


class DdpoSettings(PolicyGradientSettings):
    """DDPO's own keys; of `advantage` it takes ddof, epsilon and clip."""

    tracker: TrackerSettings  # what is remembered of a prompt

    @model_validator(mode="after")
    def _no_rules_of_groups(self) -> DdpoSettings:
        if self.advantage.min_group_std or self.advantage.trimmed_ratio:
            raise ValueError(
                "advantage.min_group_std, advantage.trimmed_ratio: rules of a group, and DDPO"
                " compares with a prompt's last rewards: set both to 0"
            )
        return self


class Ddpo(PolicyGradient):
    """Advantages by each prompt's own past."""

    Settings: ClassVar[type[ArmSettings]] = DdpoSettings
    settings: DdpoSettings

    def __init__(self, settings: DdpoSettings) -> None:
        super().__init__(settings)
        chosen = settings.tracker
        self.tracker = PromptTracker(chosen.buffer_size, chosen.min_count, settings.advantage)

    def refuses(self, effect: Effect, parts: int) -> str | None:
        """Other rewards, too: they would be remembered among the given ones."""
        if effect == "rewards":
            return "it compares with a prompt's earlier rewards, and others are on another scale"
        return super().refuses(effect, parts)

    def advantage(self, groups: GroupRewards) -> WeightedAdvantage:
        """`[P, G]`; remembers the rewards."""
        shape = groups.rewards.shape
        names = [prompt for prompt in groups.prompt_ids for _ in range(shape[1])]
        found = self.tracker.advantage(groups.rewards.flatten(), names)
        return WeightedAdvantage(1.0, found.view(shape))

    def state_dict(self) -> dict[str, Any]:
        """And the tracker's."""
        return super().state_dict() | {"tracker": self.tracker.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`."""
        rest = dict(state)
        self.tracker.load_state_dict(rest.pop("tracker", {}))
        super().load_state_dict(rest)


ARM = Ddpo
