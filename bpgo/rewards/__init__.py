"""Reward models behind one interface: images and texts in, one number per image out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from bpgo import registry
from bpgo.settings import RewardSettings

if TYPE_CHECKING:
    from torch import Tensor


class Reward(Protocol):
    """A reward model: deterministic, batched, without gradients."""

    def __call__(self, images: Tensor, texts: list[str]) -> Tensor:
        """`images` `[B, 3, H, W]` in [0, 1] and their B prompts to rewards `[B]`, float32."""


def load_reward(settings: RewardSettings, device: str = "cpu") -> Reward:
    """The reward that a reward file describes; `UserError` if its weights are missing or broken."""
    reward: Reward = registry.load_reward_class(settings.kind)(settings, device)
    return reward
