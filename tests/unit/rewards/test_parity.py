"""Published rewards give the official code's numbers, on tiny checkpoints in the real layouts.

The official numbers in tests/fixtures/rewards were made by the scripts beside them.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_rewards import (
    AESTHETIC_FILE,
    HPSV2_FILE,
    build_tiny_rewards,
    digest,
    parity_inputs,
    reward_of,
)

from bpgo.interfaces import Reward
from bpgo.records import Samples
from bpgo.rewards.shared.checkpoints import read_state_dict
from bpgo.storage.files import read_json, repository_root

OFFICIAL = repository_root() / "tests" / "fixtures" / "rewards"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("rewards")
    build_tiny_rewards(root)
    return root


def scores(reward: Reward) -> torch.Tensor:
    pairs = zip(*parity_inputs(), strict=True)
    return torch.cat([reward(Samples(image[None], [text])) for image, text in pairs])


def weights(name: str, tiny: Path) -> dict[str, torch.Tensor]:
    if name == "hpsv2":
        return read_state_dict(tiny / "hpsv2" / HPSV2_FILE, "tiny")
    if name == "pickscore":
        return load_file(tiny / "pickscore" / "model.safetensors")
    state = load_file(tiny / "aesthetic" / "clip" / "model.safetensors")
    if name == "aesthetic":
        state |= read_state_dict(tiny / "aesthetic" / AESTHETIC_FILE, "tiny")
    return state


@pytest.mark.parametrize(
    ("name", "scale"), [("hpsv2", 1), ("pickscore", 100), ("clip_score", 1), ("aesthetic", 1)]
)
def test_official_numbers(name: str, scale: float, tiny: Path) -> None:
    official = read_json(OFFICIAL / f"{name}.json")
    assert digest(weights(name, tiny)) == official["weights"], "other weights than were scored"
    expected = torch.tensor(official["scores"])
    assert len(expected.unique()) == len(expected)
    found = scores(reward_of(name, tiny)) * scale
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * scale)
