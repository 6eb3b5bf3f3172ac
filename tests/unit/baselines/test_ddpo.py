"""DDPO: advantages by each prompt's own past."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from from_files import arm_of, trainer_of
from pydantic import ValidationError
from tiny_world import same, weights

from bpgo.records import GroupRewards
from bpgo.seeding import generator

TRACKER = {"buffer_size": 6, "min_count": 5}
FIRST = torch.tensor([[1.0, 2.0, 3.0, 6.0], [0.0, 0.0, 4.0, 4.0]])
SECOND = torch.tensor([[5.0, 5.0, 5.0, 9.0], [1.0, 2.0, 3.0, 4.0]])


def groups(rewards: torch.Tensor, *names: str) -> GroupRewards:
    return GroupRewards(rewards, list(names))


def z(values: list[float], among: list[float]) -> torch.Tensor:
    sample = torch.tensor(among)
    return (torch.tensor(values) - sample.mean()) / sample.std(correction=0)


def test_the_batch_serves_until_a_prompt_is_known() -> None:
    """Of p, the last six of eight rewards; q comes the first time, and its four are too few."""
    arm = arm_of("ddpo", tracker=TRACKER)
    whole = FIRST.flatten().tolist()
    found = arm.advantage(groups(FIRST, "p", "r")).advantage
    torch.testing.assert_close(found, z(whole, whole).view(2, 4), rtol=1e-5, atol=1e-5)
    found = arm.advantage(groups(SECOND, "p", "q")).advantage
    known = z(SECOND[0].tolist(), [3.0, 6.0, *SECOND[0].tolist()])
    new = z(SECOND[1].tolist(), SECOND.flatten().tolist())
    torch.testing.assert_close(found, torch.stack([known, new]), rtol=1e-5, atol=1e-5)


def test_what_is_remembered_survives_a_stop() -> None:
    arm, again = (arm_of("ddpo", tracker=TRACKER) for _ in range(2))
    arm.advantages(groups(FIRST, "p", "q"), generator(1))
    again.load_state_dict(json.loads(json.dumps(arm.state_dict())))
    for _ in range(2):  # the buffer's size, too
        left, right = (one.advantage(groups(SECOND, "p", "q")).advantage for one in (arm, again))
        assert torch.equal(left, right)
    with pytest.raises(ValueError, match="has another state"):
        again.load_state_dict({"other": {}})


def test_other_rewards_and_rules_of_groups_are_refused() -> None:
    assert arm_of("ddpo").refuses("rewards", 0) is not None
    assert arm_of("ddpo").refuses("weights", 0) is None
    with pytest.raises(ValidationError, match="min_group_std"):
        arm_of("ddpo", advantage={"min_group_std": 0.1})
    with pytest.raises(ValidationError, match="no prompt would ever have so many"):
        arm_of("ddpo", tracker={"buffer_size": 4, "min_count": 5})


def test_a_resumed_run_equals_an_uninterrupted_one(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With prompts that come again: three iterations are an epoch."""
    runs = []
    for name, stops in (("whole", []), ("parts", [4])):
        for end in [*stops, 6]:
            trainer = trainer_of(
                monkeypatch, tiny_folder, tmp_path / name, "ddpo", changes={"tracker": TRACKER},
                training={"iterations": end, "snapshot_every": 1},
            )  # fmt: skip
            trainer.run()
        runs.append(weights(trainer))
    assert len(trainer.arm.state_dict()["tracker"]) == 6
    assert same(*runs)
