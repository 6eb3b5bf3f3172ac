"""An arm's averages: which are kept, and what is said where they do not fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from shipped_arms import make_arm, values_of
from tiny_world import make_trainer
from torch import Tensor

from bpgo.config.settings import TrainingSettings
from bpgo.core import averages as module
from bpgo.core.averages import averages_of, velocity_of
from bpgo.errors import OutOfMemoryError
from bpgo.run.ema import EMA

PARAMETERS = {"weight": torch.arange(6.0).view(2, 3), "bias": torch.ones(3)}
CPU = torch.device("cpu")


def training(**values: Any) -> TrainingSettings:
    steps = {"iterations": 2, "optimizer_steps": 1, "snapshot_every": 1, "checkpoint_every": 1}
    return TrainingSettings.model_validate({**steps, "learning_rate": 1e-3, **values})


def full_after(copies: int) -> Callable[..., EMA]:
    """An `EMA` on a device that has room for so many."""
    made = 0

    def make(*arguments: Any, **named: Any) -> EMA:
        nonlocal made
        made += 1
        if made > copies:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return EMA(*arguments, **named)

    return make


def test_the_judged_average_and_the_arms_own() -> None:
    nft = make_arm(values_of("diffusion_nft"))
    assert set(averages_of(nft, PARAMETERS, training(ema_decay=0.0), CPU)) == {"old"}
    found = averages_of(nft, PARAMETERS, training(ema_decay=0.9), CPU)
    assert set(found) == {"judged", "old"}
    for average in found.values():
        assert torch.equal(average.average["weight"], PARAMETERS["weight"])
    assert (found["judged"].by_step, found["old"].by_step) == (True, False)


@pytest.mark.parametrize("copies", [0, 1])
def test_copies_that_do_not_fit(copies: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EMA", full_after(copies))
    arm = make_arm(values_of("diffusion_nft"))
    with pytest.raises(OutOfMemoryError) as caught:
        averages_of(arm, PARAMETERS, training(ema_decay=0.9), torch.device("cuda", 0))
    text = str(caught.value)
    for words in ("the arm 'DiffusionNFT'", "(old)", "cuda:0", "training.parameters: lora"):
        assert words in text


def test_a_run_stops_before_its_first_iteration(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EMA", full_after(0))
    with pytest.raises(OutOfMemoryError, match="further policies"):
        make_trainer(
            tiny_folder,
            tmp_path / "run",
            arm="diffusion_nft",
            arm_values=values_of("diffusion_nft"),
        )
    assert not (tmp_path / "run").exists()


def test_the_velocity_of_an_average_is_that_of_its_weights() -> None:
    class Scale:
        def __init__(self) -> None:
            self.weight = torch.tensor([2.0])

        def velocity(self, latents: Tensor) -> Tensor:
            return self.weight * latents

    policy: Any = Scale()
    average = EMA({"weight": policy.weight}, lambda _: 0.5)
    policy.weight.fill_(10.0)
    velocity = velocity_of(policy, average)
    assert velocity(torch.tensor([3.0])).item() == 6
    assert policy.velocity(torch.tensor([3.0])).item() == 30
