"""A reward made of others: the sum of their scores, each standardized and weighted.

Rewards differ in scale by orders of magnitude (HPSv2 moves by about 0.01, ImageReward by about 1),
so each is first put on one scale: r_k becomes (r_k - m_k) / s_k, with the mean m_k and the standard
deviation s_k of the base policy's samples (from the calibration).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from bpgo.config.fields import Name, Number
from bpgo.config.settings import RewardSettings
from bpgo.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from bpgo.interfaces import Reward
    from bpgo.records import Calibration, Samples


class WeightedSumSettings(RewardSettings):
    """Keys of a `weighted_sum`; its parts run in its own environment and are no sums."""

    kind: Literal["weighted_sum"] = "weighted_sum"
    # Weight of each reward, by the name of its file.
    parts: Annotated[dict[Name, Number], Field(min_length=1)]
    standardize: bool = True  # by the base policy's mean and std; false: in their own units

    def part_names(self) -> list[str]:
        """The rewards that this one is made of."""
        return list(self.parts)

    @property
    def needs_calibration(self) -> bool:
        """Whether the base policy's rewards must be known."""
        return self.standardize


def weighted_sum(
    settings: WeightedSumSettings, parts: dict[str, Tensor], calibration: Calibration | None
) -> Tensor:
    """sum_k w_k (r_k - m_k) / s_k over the parts' scores r_k [B]: [B] float32.

    Raises:
        UserError: a part has no scale, because the calibration lacks it or because the base policy
            earns the same with all samples.
    """
    import torch

    total = torch.zeros((), dtype=torch.float64)
    for name, scores in scaled(settings, parts, calibration).items():
        total = total.to(scores.device) + settings.parts[name] * scores
    return total.float()


def scaled(
    settings: WeightedSumSettings, parts: dict[str, Tensor], calibration: Calibration | None
) -> dict[str, Tensor]:
    """(r_k - m_k) / s_k of each part, or r_k without `standardize`; float64, any shape.

    Raises:
        UserError: as `weighted_sum`.
    """
    found = {}
    for name in settings.parts:
        scores = parts[name].double()
        if settings.standardize:
            mean, std = _scale(settings, name, calibration)
            scores = (scores - mean) / std
        found[name] = scores
    return found


def _scale(
    settings: WeightedSumSettings, name: str, calibration: Calibration | None
) -> tuple[float, float]:
    scale = calibration.parts.get(name) if calibration is not None else None
    if scale is None:
        raise UserError(
            f"reward '{settings.title}': the calibration has no mean and standard deviation of its"
            f" part '{name}': run `calibrate` again, and give its file by --calibration"
        )
    if not scale["std"] > 0:
        raise UserError(
            f"reward '{settings.title}': its part '{name}' cannot be standardized: all samples of"
            " the base policy earn the same. Set standardize: false, or leave it out"
        )
    return scale["mean"], scale["std"]


class WeightedSum:
    """The sum, from rewards that are loaded already (by `bpgo.rewards.load_rewards`)."""

    Settings = WeightedSumSettings

    def __init__(
        self,
        settings: WeightedSumSettings,
        members: dict[str, Reward],
        calibration: Calibration | None = None,
    ) -> None:
        self.settings, self.members, self.calibration = settings, members, calibration

    @property
    def weights(self) -> dict[str, float]:
        """Of each part in the sum."""
        return dict(self.settings.parts)

    def scaled(self, parts: dict[str, Tensor]) -> dict[str, Tensor]:
        """The parts' scores on the scale on which they are added up."""
        return scaled(self.settings, parts, self.calibration)

    def parts(self, samples: Samples) -> dict[str, Tensor]:
        """Each part's scores [B], in its own units."""
        return {name: self.members[name](samples) for name in self.settings.parts}

    def combine(self, parts: dict[str, Tensor]) -> Tensor:
        """The rewards [B] of the parts' scores [B]."""
        return weighted_sum(self.settings, parts, self.calibration)

    def __call__(self, samples: Samples) -> Tensor:
        """Score images or clips: [B] float32, higher is better."""
        return self.combine(self.parts(samples))


REWARD = WeightedSum
