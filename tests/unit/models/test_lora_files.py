"""An adapter's file: equal weights give equal bytes, in any process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from tiny_world import model_settings, same

from bpgo.models.flux import FluxPolicy
from bpgo.models.lora import LORA_WEIGHTS


class Backwards(set[str]):
    """A set as another process may go through it: Python draws the order at its start."""

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(super().__iter__(), reverse=True))


def test_equal_weights_are_equal_files(tiny_folder: Path, tmp_path: Path) -> None:
    targets = ["to_q", "to_k", "to_v", "to_out.0"]
    settings = model_settings(tiny_folder, lora={"rank": 2, "alpha": 3.0, "targets": targets})
    policy = FluxPolicy(settings, "lora", seed=1)
    config = policy.transformer.peft_config["default"]
    contents = set()
    for order in (set, Backwards, set, Backwards, set, Backwards):
        config.target_modules = order(targets)
        policy.save(tmp_path)
        contents.add((tmp_path / LORA_WEIGHTS).read_bytes())
    assert len(contents) == 1
    with safe_open(tmp_path / LORA_WEIGHTS, "pt") as file:
        said = file.metadata()
    assert said["format"] == "pt"
    assert '"transformer.lora_alpha": 3.0' in said["lora_adapter_metadata"]
    other = FluxPolicy(settings, "lora", seed=2)
    other.load_trained(tmp_path)
    assert same(other.trainable(), policy.trainable())
    with torch.no_grad():
        next(iter(policy.trainable().values())).add_(1.0)
    policy.save(tmp_path)
    assert (tmp_path / LORA_WEIGHTS).read_bytes() not in contents
