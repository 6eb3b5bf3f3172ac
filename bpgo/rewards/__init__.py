"""Reward models behind one interface: images or clips and texts in, one number for each out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bpgo import registry
from bpgo.config.settings import RewardSettings
from bpgo.errors import UserError
from bpgo.rewards.frame_mean import FrameMean, FrameMeanSettings
from bpgo.rewards.weighted_sum import WeightedSum, WeightedSumSettings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bpgo.interfaces import Reward
    from bpgo.records import Calibration


def load_rewards(
    settings: Mapping[str, RewardSettings],
    names: Sequence[str],
    device: str = "cpu",
    calibration: Calibration | None = None,
) -> dict[str, Reward]:
    """The rewards `names`, each model loaded once, whatever sums it is a part of.

    `settings` also has the parts of sums, and the rewards that others call by themselves;
    `calibration` knows the scales of parts.
    """
    models: dict[str, Reward] = {}

    def model(name: str) -> Reward:
        if name not in models:
            entry = settings[name]
            if isinstance(entry, FrameMeanSettings):
                models[name] = FrameMean(entry, model(entry.reward))
            else:
                models[name] = load_reward(entry, device)
        return models[name]

    loaded: dict[str, Reward] = {}
    for name in names:
        entry = settings[name]
        if isinstance(entry, WeightedSumSettings):
            members = {part: model(part) for part in entry.parts}
            loaded[name] = WeightedSum(entry, members, calibration)
        else:
            loaded[name] = model(name)
    return loaded


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
