"""The moving average of weights."""

from __future__ import annotations

import pytest
import torch

from bpgo.run.ema import EMA, warmed_up


def test_warm_up_and_interval() -> None:
    weight = {"w": torch.zeros(1)}
    ema = EMA(weight, warmed_up(0.9), every=2)
    expected = 0.0
    for step in range(40):
        weight["w"].fill_(step)
        ema.update()
        if step % 2:
            decay = min((1 + step) / (10 + step), 0.9)
            expected = decay * expected + (1 - decay) * step
    assert ema.average["w"].item() == pytest.approx(expected, rel=1e-5)


def test_swap_restores_even_after_an_error() -> None:
    weight = {"w": torch.nn.Parameter(torch.ones(2))}
    ema = EMA(weight, warmed_up(0.5))
    with torch.no_grad():
        weight["w"].fill_(5)
    inside = []

    def use() -> None:
        with ema.swapped():
            inside.append(weight["w"].detach().clone())
            raise RuntimeError("sampling failed")

    with pytest.raises(RuntimeError, match="sampling failed"):
        use()
    assert torch.equal(inside[0], torch.ones(2))
    assert torch.equal(weight["w"].detach(), torch.full((2,), 5.0))


def test_average_of_small_types_is_float32() -> None:
    ema = EMA({"w": torch.ones(2, dtype=torch.bfloat16)}, warmed_up(0.9))
    assert ema.average["w"].dtype == torch.float32


def test_state_dict_continues_to_the_bit() -> None:
    weight = {"w": torch.zeros(3)}
    generator = torch.Generator().manual_seed(0)
    path = torch.randn(12, 3, generator=generator)

    def run(ema: EMA, rows: torch.Tensor) -> None:
        for row in rows:
            ema.parameters["w"].copy_(row)
            ema.update()

    whole = EMA(weight, warmed_up(0.9), every=3)
    run(whole, path)
    first = EMA({"w": torch.zeros(3)}, warmed_up(0.9), every=3)
    run(first, path[:7])
    second = EMA({"w": path[6].clone()}, warmed_up(0.9), every=3)
    second.load_state_dict(first.state_dict())
    run(second, path[7:])
    assert torch.equal(second.average["w"], whole.average["w"])
    with pytest.raises(KeyError, match="other names"):
        second.load_state_dict({"steps": torch.tensor(1)})
