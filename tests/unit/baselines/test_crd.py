"""CRD: rewards centred by hand, the growing regulariser, its lagging policies, and a run."""

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

from baselines.crd import OLD, SAMPLER
from bpgo.config.settings import RolloutSettings
from bpgo.records import Passes
from bpgo.seeding import generator

SIZES = RolloutSettings(prompts_per_iteration=2, group_size=3, steps=10)
GROUP = 2


def _seen(velocity: Tensor, old: Tensor) -> Any:
    """One latent number a row: sample 1 and noise 3, so 2 is the right velocity."""
    ones = torch.ones(len(velocity), 1, dtype=velocity.dtype)
    return SimpleNamespace(
        velocity=velocity,
        others={OLD: old},
        sample=ones,
        noise=3 * ones,
        by_group=lambda values: values.view(-1, GROUP),
    )


def _column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


WANTED = torch.tensor([2.5, -2.5, 5.0, 5.0], dtype=torch.float64)  # r = .75, .25 | 1, 1


def test_loss_by_hand(arm_of) -> None:
    """R = 4 - (1, 4) = 3, 0 and 1 - 1 = 0, 0: centred 1.5, -1.5 | 0, 0; r centred .25, -.25 | 0."""
    seen = _seen(_column(1, 0, 3, 3), _column(0, 0, 1, 1))
    arm = arm_of("crd", beta=2.0, of_own_size=False)
    found = arm.loss(seen, WANTED).rows
    assert found.tolist() == pytest.approx([(3 - 0.25) ** 2 * 2.5] * 2 + [0, 0])
    entropy = arm_of("crd", beta=2.0, of_own_size=False, form="bce").loss(seen, WANTED).rows
    target = 1 / (1 + math.exp(-0.25))
    expected = -target * math.log(1 / (1 + math.exp(-3))) - (1 - target) * math.log(
        1 / (1 + math.exp(3))
    )
    assert entropy.tolist() == pytest.approx([expected * 2.5] * 2 + [math.log(2) * 2.5] * 2)


def test_an_error_by_its_own_size(arm_of) -> None:
    """3^2 / 3 and 1: R is 2; the size has no gradient."""
    velocity = _column(1, 1).requires_grad_()
    found = arm_of("crd").implicit_reward(_seen(velocity, _column(-1, -1)))
    assert found.tolist() == [[2.0, 2.0]]
    (gradient,) = torch.autograd.grad(found.sum(), velocity)
    assert gradient.flatten().tolist() == [2.0, 2.0]  # towards 2


def test_means_of_a_group(arm_of) -> None:
    wanted = torch.tensor([[1.0, 0.0]])
    assert arm_of("crd").shares(wanted).tolist() == [[[0.5, 0.5]]]
    soft = arm_of("crd", centre="softmax", temperature=0.5).shares(wanted)
    high = 1 / (1 + math.exp(-2))
    torch.testing.assert_close(soft, torch.tensor([[[high, 1 - high]], [[1 - high, high]]]))
    assert arm_of("crd", centre="released_hard").shares(wanted).tolist() == [
        [[1.0, 0.0]],
        [[0.5, 0.5]],
    ]


def test_the_regulariser_grows_with_the_reward(arm_of) -> None:
    """From 1e-4 at the worst sample to its whole weight at the best."""
    seen = _seen(_column(1, 0, 3, 3), _column(0, 0, 1, 1))
    wanted = torch.tensor([-5.0, 0.0, 5.0, 5.0])
    held = arm_of("crd", kl_weight=0.1).loss(seen, wanted).held
    assert (0.1 * held).tolist() == pytest.approx([1e-4, (0.1 + 1e-4) / 2, 0.1, 0.1])
    plain = arm_of("crd", adaptive_kl=False).loss(seen, wanted).held
    assert plain.tolist() == [1.0] * 4


def test_what_grows_reaches_the_update(make, tmp_path: Path) -> None:
    """A regulariser that counts half in each row is one of half the weight, to the bit."""
    weights = {}
    for name, weight, held in (("half", 0.1, 0.5), ("less", 0.05, 1.0)):
        trainer = make("crd", tmp_path / name, arm_changes={"kl_weight": weight})
        loss = trainer.arm.loss

        def with_held(*given: Any, loss: Any = loss, held: float = held) -> Any:
            found = loss(*given)
            object.__setattr__(found, "held", torch.full_like(found.rows, held))
            return found

        trainer.arm.loss = with_held
        for iteration in (1, 2):
            trainer.iterate(iteration)
        weights[name] = torch.cat([value.flatten() for value in trainer.parameters.values()])
    torch.testing.assert_close(weights["half"], weights["less"])


def test_gradient_at_the_lagging_policy(arm_of) -> None:
    """R is 0 for all: towards the wanted samples, away from the others."""
    velocity = _column(1, 1).requires_grad_()
    rows = arm_of("crd").loss(_seen(velocity, velocity.detach()), WANTED[:2]).rows
    (gradient,) = torch.autograd.grad(rows.sum(), velocity)
    better, worse = gradient.flatten().tolist()
    assert better < 0 < worse  # the right velocity, 2, lies above 1
    assert better == pytest.approx(-worse)


def test_decays(arm_of) -> None:
    averages = arm_of("crd").averages()
    assert [averages[OLD].decay(n) for n in (0, 50, 1000)] == pytest.approx([0.25, 0.5, 0.999])
    assert [averages[SAMPLER].decay(n) for n in (0, 75, 175, 1000)] == [0.0, 0.0, 0.75, 0.999]


def test_levels_and_passes(arm_of) -> None:
    trained = arm_of("crd").plan(SIZES, 1, generator(1)).trained
    assert trained.shape == (6, 9)
    assert (trained == trained[0]).all()
    assert arm_of("crd").passes(SIZES) == Passes(10, 9, 18)
    assert arm_of("crd", kl_weight=0.0).passes(SIZES) == Passes(10, 9, 9)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"shared_initial_noise": True}, "one sample G times"),
        ({"advantage": {**PLAIN, "clip": None}}, "advantage.clip"),
        ({"form": "hinge"}, "form"),
        ({"temperature": 0}, "temperature"),
        ({"centre": "hard"}, "centre"),
        ({"noise_level": 0.7}, "noise_level"),
    ],
)
def test_what_the_settings_refuse(arm_of, changes: dict, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        arm_of("crd", **changes)


def test_a_run_is_resumed_to_the_bit(assert_resumes) -> None:
    assert_resumes("crd")
