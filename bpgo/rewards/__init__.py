"""Reward models behind one interface: images and texts in, one number per image out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bpgo import registry
from bpgo.errors import UserError
from bpgo.settings import RewardSettings

if TYPE_CHECKING:
    from bpgo.core.interfaces import Reward


def load_reward(settings: RewardSettings, device: str = "cpu") -> Reward:
    """The reward that a reward file describes.

    Raises:
        UserError: if its weights are missing or broken, or a package that it needs does not import.
    """
    kind = registry.load_reward_class(settings.kind)
    try:
        reward: Reward = kind(settings, device)
    except ImportError as error:
        file = f"workflow/envs/{settings.environment}.yaml"
        raise UserError(
            f"reward '{settings.title}': a package that it needs does not import in this"
            f" environment: {' '.join(str(error).split())}. {file} lists what it needs: run"
            f" Snakemake with --use-conda, which installs that, or start this command in an"
            " environment that has it"
        ) from None
    return reward
