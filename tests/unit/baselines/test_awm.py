"""AWM: likelihood, ratio and pulls by hand, its noise levels, and a run."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from advantages import PLAIN
from pydantic import ValidationError
from torch import Tensor

from baselines.awm import FAST, OLD
from bpgo.config.settings import RolloutSettings
from bpgo.core.arm import BASE
from bpgo.records import Passes
from bpgo.seeding import generator

SIZES = RolloutSettings(prompts_per_iteration=2, group_size=3, steps=14)


def _seen(velocity: Tensor, **others: Tensor) -> Any:
    """One latent number a row: sample 1 and noise 3 at level 0.5, so 2 is the right velocity."""
    ones = torch.ones(len(velocity), 1, dtype=velocity.dtype)
    return SimpleNamespace(
        velocity=velocity,
        others=others,
        sample=ones,
        noise=3 * ones,
        sigma=torch.full((len(velocity),), 0.5, dtype=velocity.dtype),
    )


@pytest.mark.parametrize(
    ("weighting", "expected"),
    [("uniform", -9.0), ("t", -4.5), ("t2", -2.25), ("ghuber", -math.sqrt(3) * 0.5 / 0.25)],
)
def test_log_prob_by_hand(arm_of, weighting: str, expected: float) -> None:
    """A velocity of 5 misses by 3; 9^(1/4) is the root of 3."""
    arm = arm_of("awm", weighting=weighting)
    velocity = torch.tensor([[5.0]], dtype=torch.float64)
    found = arm.log_prob(_seen(velocity), velocity).item()
    floor = 0.5 / 0.25 * 1e-10**0.25 if weighting == "ghuber" else 0
    assert found == pytest.approx(expected + floor)


def test_loss_by_hand(arm_of) -> None:
    """log p is -1 now and -4 before: the ratio is e^3, clipped at 2 where that is less."""
    velocity = torch.full((3, 1), 1.0)
    seen = _seen(velocity, **{OLD: torch.zeros(3, 1)})
    arm = arm_of("awm", weighting="uniform")
    found = arm.loss(seen, torch.tensor([5.0, 2.5, -5.0]))  # counts 1, 1/2, -1
    assert found.rows.tolist() == pytest.approx([-2.0, -1.0, math.exp(3)])
    assert found.ratio.tolist() == pytest.approx([math.exp(3)] * 3)
    assert found.clipped.all()


def test_regulariser_and_pull_by_hand(arm_of) -> None:
    """(1 - 3)^2 to the base; (1 - 2)^2 to the fast average, whose weight is in it."""
    others = {BASE: torch.full((1, 1), 3.0), FAST: torch.full((1, 1), 2.0)}
    arm = arm_of("awm", kl_weight=0.5, pull_weight=0.2)
    seen = _seen(torch.ones(1, 1), **others)
    assert arm.regulariser(seen).item() == 4.0
    assert arm.pull(seen).item() == pytest.approx(0.2)
    assert arm_of("awm", pull_weight=0.0).pull(seen) is None


def test_levels_are_one_of_each_part(arm_of) -> None:
    """14 steps: of the first 12 levels one of each two, the same for all samples."""
    arm, seen = arm_of("awm"), set()
    for iteration in range(40):
        trained = arm.plan(SIZES, iteration, generator(iteration)).trained
        assert trained.shape == (6, 6)
        assert (trained == trained[0]).all()
        assert [level // 2 for level in trained[0].tolist()] == [0, 1, 2, 3, 4, 5]
        seen |= set(trained[0].tolist())
    assert seen == set(range(12))
    first = arm_of("awm", skipped_levels=1)
    assert all((first.plan(SIZES, i, generator(i)).trained > 0).all() for i in range(40))


def test_decays(arm_of) -> None:
    averages = arm_of("awm").averages()
    assert [averages[OLD].decay(n) for n in (1, 1000)] == [0.0, 0.0]
    assert [averages[FAST].decay(n) for n in (1, 100, 300, 5000)] == [0.001, 0.1, 0.3, 0.3]


def test_passes(arm_of) -> None:
    assert arm_of("awm").passes(SIZES) == Passes(14, 6, 18)
    assert arm_of("awm", kl_weight=0.0).passes(SIZES) == Passes(14, 6, 12)
    assert arm_of("awm", kl_weight=0.0, pull_weight=0.0).others() == [OLD]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"shared_initial_noise": True}, "one sample G times"),
        ({"advantage": {**PLAIN, "clip": None}}, "advantage.clip"),
        ({"weighting": "t**3"}, "weighting"),
        ({"pull_weight": -1}, "pull_weight"),
        ({"noise_level": 0.7}, "noise_level"),
        ({"stochastic_steps": 2}, "stochastic_steps"),
    ],
)
def test_what_the_settings_refuse(arm_of, changes: dict, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        arm_of("awm", **changes)


def test_the_ratio_is_to_the_policy_that_drew(make, tmp_path: Path) -> None:
    """In the second of two optimizer steps an iteration it is not 1; in the first it is."""
    trainer, ratios = make("awm", tmp_path), []
    loss = trainer.arm.loss

    def watch(*given: Any) -> Any:
        found = loss(*given)
        ratios.append(found.ratio.detach())
        return found

    trainer.arm.loss = watch
    for iteration in (1, 2):
        ratios.clear()
        entry = trainer.iterate(iteration)
        assert entry["ratio_deviation"] == 0.0
        assert (ratios[0] == 1).all()
        assert (ratios[-1] != 1).all()


def test_the_pull_is_in_the_gradient_and_the_metrics(make, tmp_path: Path) -> None:
    """From the second optimizer step on the policy and its fast average differ."""
    entries = {}
    for weight in (0.0, 100.0):
        changes = {"pull_weight": weight}
        trainer = make("awm", tmp_path / str(weight), arm_changes=changes)
        entries[weight] = trainer.iterate(1)
    assert "pull" not in entries[0.0]
    assert entries[100.0]["pull"] > 0
    assert entries[100.0]["kl"] < entries[100.0]["pull"]
    assert entries[100.0]["gradient_norm"] > entries[0.0]["gradient_norm"]


def test_a_run_is_resumed_to_the_bit(assert_resumes) -> None:
    assert_resumes("awm")
