"""Our AdamW is torch's, without the compiler's import."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch

from bpgo.run.optimizer import AdamW
from bpgo.seeding import generator
from bpgo.storage.files import repository_root


def trained(kind: type[Any], **options: Any) -> tuple[list[torch.Tensor], dict[str, Any]]:
    parameters = [
        torch.nn.Parameter(torch.randn(4, 3, generator=generator(number))) for number in range(3)
    ]
    optimizer = kind(parameters[:2], lr=1e-2, **options)
    optimizer.add_param_group({"params": parameters[2:], "lr": 1e-3})
    for step in range(5):
        optimizer.zero_grad()
        for number, parameter in enumerate(parameters):
            parameter.grad = torch.randn(4, 3, generator=generator(step, number))
        optimizer.step()
        optimizer.load_state_dict(optimizer.state_dict())
    optimizer.zero_grad(set_to_none=True)
    assert all(parameter.grad is None for parameter in parameters)
    return [parameter.detach() for parameter in parameters], optimizer.state_dict()


@pytest.mark.parametrize(
    "options", [{}, {"fused": True}, {"fused": True, "weight_decay": 0.1, "betas": (0.8, 0.9)}]
)
def test_same_as_torchs_to_the_bit(options: dict[str, Any]) -> None:
    (ours, our_state), (theirs, their_state) = (
        trained(kind, **options) for kind in (AdamW, torch.optim.AdamW)
    )
    assert all(torch.equal(one, two) for one, two in zip(ours, theirs, strict=True))
    assert our_state["param_groups"] == their_state["param_groups"]
    for key, entry in their_state["state"].items():
        assert all(torch.equal(our_state["state"][key][name], entry[name]) for name in entry)


def test_no_compiler_is_imported() -> None:
    script = """
import sys, torch
from bpgo.run.optimizer import AdamW
weight = torch.nn.Parameter(torch.ones(2))
optimizer = AdamW([weight], lr=0.1, fused=True)
weight.square().sum().backward()
optimizer.step()
optimizer.load_state_dict(optimizer.state_dict())
optimizer.zero_grad()
assert weight.requires_grad and float(weight[0]) < 1
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], cwd=repository_root(), check=True)
