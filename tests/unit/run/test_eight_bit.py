"""`training.optimizer: adamw_8bit`: named where it cannot run, and resumed with its own types."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from tiny_world import make_trainer, tiny_settings
from torch import Tensor

from bpgo.errors import UserError
from bpgo.run import checkpoint
from bpgo.run.optimizer import make_optimizer


class Weight:
    """A weight that says it lies on a GPU."""

    device = torch.device("cuda")


class SharedWeight(Weight):
    full_tensor = None


def eight_bit(folder: Path) -> Any:
    return tiny_settings(folder, training={"optimizer": "adamw_8bit"}).training


def test_it_needs_a_gpu(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)  # it is not asked for
    with pytest.raises(UserError, match=r"training\.optimizer: 'adamw_8bit' needs a GPU"):
        make_trainer(tiny_folder, tmp_path, training={"optimizer": "adamw_8bit"})


def test_it_needs_its_package(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("bitsandbytes", "bitsandbytes.optim"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match="pip install bitsandbytes"):
        make_optimizer([Weight()], eight_bit(tiny_folder))  # type: ignore[list-item]


def test_it_moves_no_sharded_weights(tiny_folder: Path) -> None:
    with pytest.raises(UserError, match=r"machine\.shard_weights: false"):
        make_optimizer([SharedWeight()], eight_bit(tiny_folder))  # type: ignore[list-item]


def test_it_gets_the_settings(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package, optim = ModuleType("bitsandbytes"), ModuleType("bitsandbytes.optim")
    optim.AdamW8bit = lambda weights, **options: (weights, options)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "bitsandbytes", package)
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", optim)
    weight = Weight()
    found: Any = make_optimizer([weight], eight_bit(tiny_folder))  # type: ignore[list-item]
    assert found[0] == [weight]
    assert set(found[1]) == {"lr", "betas", "eps", "weight_decay"}
    assert found[1]["lr"] == 1e-3


class EightBit(torch.optim.SGD):
    """Keeps a state like that of bitsandbytes, which loads it without changing its types."""

    table = torch.linspace(-1, 1, 256)  # one for all weights

    def step(self, closure: Any = None) -> None:
        for weight in self.param_groups[0]["params"]:
            state = self.state[weight]
            if not state:
                state["step"] = 0
                state["state1"] = torch.arange(weight.numel(), dtype=torch.uint8)
                state["absmax1"] = torch.tensor([0.5, 2.0])
                state["qmap1"] = self.table
            state["step"] += 1

    def state_dict(self) -> dict[str, Any]:
        """The 8-bit parts in a mapping of their own."""
        state = {
            index: {
                "step": entry["step"],
                "__parts__": {name: value for name, value in entry.items() if name != "step"},
            }
            for index, entry in enumerate(self.state.values())
        }
        return {"state": state, "param_groups": super().state_dict()["param_groups"]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        weights = self.param_groups[0]["params"]
        for index, entry in state_dict["state"].items():
            self.state[weights[index]] = entry


def test_its_state_comes_back_with_its_types(tmp_path: Path) -> None:
    weights = [torch.nn.Parameter(torch.zeros(6)), torch.nn.Parameter(torch.zeros(3))]
    first, second = (EightBit(weights, lr=0.1) for _ in range(2))
    first.step()
    first.step()
    tensors = checkpoint.optimizer_tensors(first)
    empty: dict[str, Tensor] = {}
    saved = checkpoint.Checkpoint(1, empty, tensors, empty, {})
    checkpoint.save(tmp_path, saved, "digest")
    loaded, _ = checkpoint.load_newest(tmp_path, "digest")
    assert loaded is not None
    checkpoint.restore_optimizer(second, loaded.optimizer)
    for weight in weights:
        before, after = first.state[weight], second.state[weight]
        assert after["step"] == 2
        assert type(after["step"]) is int  # as bitsandbytes counts
        assert after["state1"].dtype == torch.uint8
        assert after["state1"].equal(before["state1"])
        assert after["absmax1"].equal(before["absmax1"])
        assert after["qmap1"].equal(EightBit.table)
