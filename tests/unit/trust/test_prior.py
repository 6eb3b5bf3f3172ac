"""Where the anchor comes from, at the first iteration and when something is missing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bpgo.errors import UserError
from bpgo.records import Calibration, GroupRewards
from bpgo.trust.prior import FirstFrame, Fixed, MovingAverage, SftMean

CALIBRATION = Calibration(mean=2.0, std=0.5, minimum=1.0, prompt_means={"a": 1.5, "b": 2.5})


def _groups(value: float = 1.0, **changes) -> GroupRewards:
    rewards = torch.full((2, 3), value)
    return GroupRewards(rewards, changes.pop("ids", ["a", "b"]), **changes)


def test_sft_mean_looks_prompts_up() -> None:
    prior = SftMean().get(_groups(calibration=CALIBRATION, ids=["b", "unseen"]))
    assert prior[0] == 2.5
    assert prior[1].isnan()
    with pytest.raises(UserError, match="needs a calibration"):
        SftMean().get(_groups())


def test_moving_average_starts_at_the_base_policy() -> None:
    prior = MovingAverage(momentum=0.9)
    assert prior.get(_groups(1.0, calibration=CALIBRATION)).tolist() == [2.0, 2.0]
    prior.update(_groups(1.0, calibration=CALIBRATION))
    assert prior.get(_groups(7.0)).tolist() == pytest.approx([1.9, 1.9])


def test_moving_average_without_calibration_starts_at_the_first_batch() -> None:
    prior = MovingAverage(momentum=0.9)
    assert prior.get(_groups(3.0)).tolist() == [3.0, 3.0]
    prior.update(_groups(3.0))
    prior.update(_groups(4.0))
    assert prior.mean == pytest.approx(3.1)


def test_moving_average_refuses_a_reward_that_is_not_finite() -> None:
    prior = MovingAverage(momentum=0.9)
    prior.update(_groups(3.0))
    rewards = torch.tensor([[1.0, 2.0], [1.0, float("nan")]])
    with pytest.raises(UserError, match="prompt 'b' is not finite"):
        prior.update(GroupRewards(rewards, ["a", "b"]))
    assert prior.mean == 3.0


def test_state_dict() -> None:
    prior = MovingAverage(momentum=0.9)
    prior.update(_groups(3.0))
    other = MovingAverage(momentum=0.9)
    other.load_state_dict(prior.state_dict())
    assert other.mean == prior.mean
    assert SftMean().state_dict() == {}


def test_first_frame_and_fixed() -> None:
    frames = torch.tensor([0.2, 0.4])
    still = FirstFrame("none")
    torch.testing.assert_close(still.get(_groups(first_frame=frames)), frames.double())
    with pytest.raises(UserError, match="first frame"):
        still.get(_groups())
    assert Fixed(0.3).get(_groups()).tolist() == [0.3, 0.3]


def test_first_frame_is_moved_to_the_level_of_clips() -> None:
    """Clips earn 2 on average, first frames .5: an anchor is its frame's reward and 1.5 more."""
    known = replace(CALIBRATION, first_frames={"a": 0.25, "b": 0.75})
    groups = _groups(first_frame=torch.tensor([0.25, 0.75]), calibration=known)
    assert FirstFrame("base_mean").get(groups).tolist() == [1.75, 2.25]
    for calibration in (None, CALIBRATION):
        with pytest.raises(UserError, match="calibrat"):
            FirstFrame("base_mean").get(replace(groups, calibration=calibration))
