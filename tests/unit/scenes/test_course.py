"""The one training loop of the embedded worlds."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from bpgo.run.ema import EMA, warmed_up
from bpgo.scenes.course import (
    FlowCourse,
    Loss,
    cosine,
    learning_rate_share,
    match_flow,
    one_cycle,
    run_course,
)


def test_steps_and_their_average(capsys: pytest.CaptureFixture[str]) -> None:
    """w^2 / 2 by plain gradient descent at rate 1/2, with gradients clipped to 1."""
    weight = nn.Parameter(torch.tensor(4.0))
    optimizer = torch.optim.SGD([weight], lr=0.5)
    average = EMA({"weight": weight}, warmed_up(0.995))

    def loss_of_batch() -> Loss:
        return weight.square() / 2, {"weight": weight}

    run_course("test", 2, optimizer, LambdaLR(optimizer, lambda _: 1.0), loss_of_batch, average)
    assert float(weight) == 3.0
    after_one = 0.1 * 4.0 + 0.9 * 3.5
    expected = 2 / 11 * after_one + 9 / 11 * 3.0
    assert float(average.average["weight"]) == pytest.approx(expected, rel=1e-6)
    assert "test: 2/2" in capsys.readouterr().err


def test_flow_matching_asks_for_noise_minus_data(capsys: pytest.CaptureFixture[str]) -> None:
    """Who knows the data reads the noise off the noisy data, and has no loss."""
    draws = torch.Generator().manual_seed(0)
    data = torch.randn(6, 2, 3, generator=draws)
    idle = nn.Parameter(torch.zeros(()))
    levels: list[Tensor] = []

    def predict(rows: Tensor, noisy: Tensor, sigma: Tensor) -> Tensor:
        levels.append(sigma)
        return (noisy - data[rows]) / sigma[:, None, None] + idle

    course = FlowCourse("flow", 40, 1e-3, 0.3, 64)
    average = match_flow(course, {"idle": idle}, data, predict, draws)
    assert capsys.readouterr().err.count("loss 0.0000") >= 2
    assert abs(float(average.average["idle"])) < 1e-3
    logits = torch.logit(torch.cat(levels))
    assert float(logits.mean()) == pytest.approx(0.3, abs=0.1)
    assert float(logits.std()) == pytest.approx(1.0, abs=0.1)


def test_the_learning_rate_rises_and_falls() -> None:
    shares = [learning_rate_share(step, 1000) for step in range(1000)]
    assert shares[0] == 0.01
    assert max(shares) == shares[99] == shares[100] == 1.0
    assert shares[550] == pytest.approx(0.5)
    assert 0 < shares[-1] < 1e-5
    for schedule in (cosine, lambda optimizer, steps: one_cycle(optimizer, 0.1, steps)):
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(()))], lr=0.1, momentum=0.9)
        way = schedule(optimizer, 20)
        rates = []
        for _ in range(20):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            way.step()
        assert max(rates) == pytest.approx(0.1)
        assert rates[-1] < 0.01 < rates[10]
