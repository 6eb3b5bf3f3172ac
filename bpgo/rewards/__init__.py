"""Reward models behind one interface: images and texts in, one number per image out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bpgo import registry
from bpgo.settings import RewardSettings

if TYPE_CHECKING:
    from bpgo.core.interfaces import Reward


def load_reward(settings: RewardSettings, device: str = "cpu") -> Reward:
    """The reward that a reward file describes; `UserError` if its weights are missing or broken."""
    reward: Reward = registry.load_reward_class(settings.kind)(settings, device)
    return reward
