"""Published checkpoints: what is read, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from bpgo.errors import UserError
from bpgo.rewards.shared.checkpoints import load_weights, read_state_dict

STATE = {"weight": torch.arange(6.0).view(2, 3), "bias": torch.ones(2)}


class Custom:
    """Unpickling an object such as this one could run code."""


def same(found: dict[str, torch.Tensor]) -> bool:
    return found.keys() == STATE.keys() and all(torch.equal(found[k], STATE[k]) for k in STATE)


@pytest.mark.parametrize(
    "content",
    [STATE, {"state_dict": STATE, "epoch": 3}, {f"module.{k}": v for k, v in STATE.items()}],
    ids=["plain", "wrapped", "prefixed"],
)
def test_torch_files(content: dict, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "a.pt")
    assert same(read_state_dict(tmp_path / "a.pt", "reward 'x'"))


def test_safetensors(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "a.safetensors")
    assert same(read_state_dict(tmp_path / "a.safetensors", "reward 'x'"))


def test_code_is_refused(tmp_path: Path) -> None:
    torch.save({**STATE, "extra": Custom()}, tmp_path / "a.pt")
    with pytest.raises(UserError, match=r"reward 'x': .*a\.pt is refused"):
        read_state_dict(tmp_path / "a.pt", "reward 'x'")


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
def test_a_broken_file(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"not a checkpoint")
    with pytest.raises(UserError, match=r"reward 'x': .*(refused|cannot be read)"):
        read_state_dict(tmp_path / name, "reward 'x'")
    with pytest.raises(UserError, match="cannot be read"):
        read_state_dict(tmp_path / f"missing-{name}", "reward 'x'")


def test_a_file_without_tensors(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "a.pt")
    with pytest.raises(UserError, match="holds no tensors"):
        read_state_dict(tmp_path / "a.pt", "reward 'x'")


def test_weights_are_put_in(tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    load_weights(model, STATE, tmp_path, "reward 'x'")
    assert same(model.state_dict())


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"weight": STATE["weight"]}, "1 of 2 tensors do not fit, such as: bias is missing"),
        ({**STATE, "scale": torch.ones(1)}, "scale is unknown"),
        ({**STATE, "bias": torch.ones(3)}, r"bias has shape \[3\], expected \[2\]"),
    ],
)
def test_another_checkpoint(state: dict, words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        load_weights(nn.Linear(3, 2), state, tmp_path / "a.pt", "reward 'x'")
