"""GDPO: each of several rewards is normalised for itself, their sum over the batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from from_files import arm_of, trainer_of
from tiny_world import redness
from torch import Tensor

from bpgo.core.advantage import group_advantage
from bpgo.records import GroupRewards, Samples

A = torch.tensor([[0.0, 1.0, 2.0, 5.0], [1.0, 1.0, 2.0, 4.0]])
B = torch.tensor([[0.9, 0.8, 0.0, 0.3], [0.7, 0.5, 0.0, 0.0]])
WEIGHTS = {"a": 3.0, "b": 1.0}


def groups(a: Tensor, b: Tensor) -> GroupRewards:
    total = WEIGHTS["a"] * a + WEIGHTS["b"] * b
    return GroupRewards(total, ["p", "q"], parts={"a": a, "b": b}, part_weights=WEIGHTS)


def test_the_advantage_by_hand() -> None:
    def z(values: Tensor, whole: bool = False) -> Tensor:
        axis = None if whole else 1
        mean = values.mean(dim=axis, keepdim=True)
        return (values - mean) / values.std(dim=axis, correction=0, keepdim=True)

    found = arm_of("gdpo").advantage(groups(A, B)).advantage
    expected = z(0.75 * z(A.double()) + 0.25 * z(B.double()), whole=True)
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-6)


def test_scales_of_rewards_and_weights_do_not_matter() -> None:
    """What a sum of rewards lacks."""
    found = arm_of("gdpo").advantage(groups(A, B)).advantage
    scaled = arm_of("gdpo").advantage(groups(A * 1000, B / 50)).advantage
    torch.testing.assert_close(found, scaled)
    summed = arm_of("gdpo", combine="rewards")
    plain = summed.advantage(groups(A, B)).advantage
    assert torch.equal(plain, group_advantage(3 * A + B, summed.settings.advantage))


def test_a_group_without_differences_has_no_advantage_at_all() -> None:
    """So that its forward passes are saved; the others' mean is 0 by rounding alone."""
    same = torch.full((1, 4), 0.7)
    found = arm_of("gdpo").advantage(groups(torch.cat([A, same]), torch.cat([B, same]))).advantage
    assert not found[2].any()
    assert found[:2].ne(0).all()


@pytest.mark.parametrize(("parts", "fits"), [(0, False), (1, False), (2, True), (3, True)])
def test_it_wants_several_rewards(parts: int, fits: bool) -> None:
    assert (arm_of("gdpo").refuses_reward(parts) is None) is fits
    assert arm_of("gdpo", combine="rewards").refuses_reward(parts) is None


class Two:
    """Redness and a contrary, greenness."""

    weights = {"red": 1.0, "green": 2.0}  # noqa: RUF012

    def parts(self, samples: Samples) -> dict[str, Tensor]:
        return {"red": redness(samples), "green": samples.pixels[:, 1].mean(dim=(1, 2))}

    def scaled(self, parts: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: 10 * part for name, part in parts.items()}

    def combine(self, parts: dict[str, Tensor]) -> Tensor:
        return parts["red"] + 2 * parts["green"]

    def __call__(self, samples: Samples) -> Tensor:
        return self.combine(self.parts(samples))


def test_it_trains_by_the_parts_of_the_reward(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = trainer_of(monkeypatch, tiny_folder, tmp_path, "gdpo", reward=Two())
    seen: list[tuple[GroupRewards, Tensor]] = []
    inner = trainer.arm.advantage

    def watched(given: GroupRewards):
        found = inner(given)
        seen.append((given, found.advantage))
        return found

    monkeypatch.setattr(trainer.arm, "advantage", watched)
    entry = trainer.iterate(1)
    ((given, advantage),) = seen
    assert set(given.parts) == {"red", "green"}
    assert advantage.mean().item() == pytest.approx(0, abs=1e-6)  # of the batch, as its std
    assert advantage.std(correction=0).item() == pytest.approx(1, abs=1e-4)
    assert entry["ratio_deviation"] == 0.0
    assert entry["gradient_norm"] > 0
