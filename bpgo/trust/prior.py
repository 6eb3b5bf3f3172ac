"""The semantic prior anchor R_prior: what a clear, typical prompt is expected to earn.

An estimator answers with one anchor a group, `[P]` float64 in the reward's own units, NaN where a
prompt has none (such a group keeps its rewards). `get` answers from what was known *before* the
batch; `update` then learns from it, so a group's own mean never sits in its own anchor. Importing
this file does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from bpgo.errors import UserError
from bpgo.records import Calibration, GroupRewards

if TYPE_CHECKING:
    from torch import Tensor

    from bpgo.trust.bpgo import BpgoSettings


class Prior:
    """An estimator without memory; subclasses say where the anchor comes from."""

    def get(self, groups: GroupRewards) -> Tensor:
        """The anchor of each group `[P]`; NaN where there is none."""
        raise NotImplementedError

    def update(self, groups: GroupRewards) -> None:
        """Learn from a batch. Most estimators do not."""

    def state_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`."""


class SftMean(Prior):
    """The mean reward of the base (SFT) policy's own samples for the prompt (the paper's T2V).

    Prompts outside the calibration have no prior. `UserError` if there is no calibration at all.
    """

    def get(self, groups: GroupRewards) -> Tensor:
        """`[P]`, looked up by prompt id."""
        means = _calibration(groups, "sft_mean").prompt_means
        return _float64([means.get(prompt, float("nan")) for prompt in groups.prompt_ids])


class MovingAverage(Prior):
    """Exponential moving average of the batches' mean reward, one anchor for all prompts (T2I).

    m <- momentum m + (1 - momentum) mean(R). It starts at the base policy's mean reward; without a
    calibration, at the mean of the first batch.
    """

    def __init__(self, momentum: float) -> None:
        self.momentum = momentum
        self.mean: float | None = None

    def get(self, groups: GroupRewards) -> Tensor:
        """`[P]`, the same number for every group."""
        return _float64([self._current(groups)] * len(groups.rewards))

    def update(self, groups: GroupRewards) -> None:
        """Move the average; `UserError`, and no move, if a reward is not finite."""
        finite = groups.rewards.isfinite().all(dim=1)
        if not finite.all():
            prompt = groups.prompt_ids[int((~finite).int().argmax())]
            raise UserError(f"a reward of prompt '{prompt}' is not finite: the prior cannot use it")
        batch = groups.rewards.double().mean().item()
        self.mean = self.momentum * self._current(groups) + (1 - self.momentum) * batch

    def _current(self, groups: GroupRewards) -> float:
        if self.mean is not None:
            return self.mean
        if groups.calibration is not None:
            return groups.calibration.mean
        return groups.rewards.double().mean().item()

    def state_dict(self) -> dict[str, Any]:
        """The average so far, or null."""
        return {"mean": self.mean}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`."""
        self.mean = state["mean"]


class FirstFrame(Prior):
    """The text alignment of the given first frame (the paper's I2V), one number a group.

    A still frame and a moving clip earn rewards of another level. `base_mean` moves the anchor by
    the mean reward of the base policy's clips (`Calibration.mean`) less the mean reward of the
    first frames (of all `Calibration.first_frames`), so that it compares like with like; `none`
    takes the still's reward as it is.
    """

    def __init__(self, offset: Literal["base_mean", "none"]) -> None:
        self.offset = offset

    def get(self, groups: GroupRewards) -> Tensor:
        """`[P]`; `UserError` if the batch or, for an offset, the calibration has no first frame."""
        if groups.first_frame is None:
            raise UserError("prior 'first_frame' needs image-to-video prompts with a first frame")
        anchor = groups.first_frame.double()
        if self.offset == "none":
            return anchor
        base = _calibration(groups, "first_frame")
        if not base.first_frames:
            raise UserError(
                "first_frame_offset 'base_mean' needs the first frames' rewards in the calibration:"
                " run `calibrate` again, or set it to 'none'"
            )
        return anchor + (base.mean - sum(base.first_frames.values()) / len(base.first_frames))


class Fixed(Prior):
    """One constant, in the reward's own units."""

    def __init__(self, value: float) -> None:
        self.value = value

    def get(self, groups: GroupRewards) -> Tensor:
        """`[P]`, the constant."""
        return _float64([self.value] * len(groups.rewards))


def make_prior(settings: BpgoSettings) -> Prior:
    """The estimator that the settings name."""
    if settings.prior == "moving_average":
        return MovingAverage(settings.momentum)
    if settings.prior == "fixed":
        assert settings.fixed_prior is not None  # the settings' own check
        return Fixed(settings.fixed_prior)
    if settings.prior == "first_frame":
        return FirstFrame(settings.first_frame_offset)
    return SftMean()


def _calibration(groups: GroupRewards, name: str) -> Calibration:
    if groups.calibration is None:
        raise UserError(f"prior '{name}' needs a calibration: run `calibrate` first")
    return groups.calibration


def _float64(values: list[float]) -> Tensor:
    import torch

    return torch.tensor(values, dtype=torch.float64)
