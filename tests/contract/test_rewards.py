"""What every reward must do: each file in `config/rewards` is tested, so a new one is too."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bpgo import config, registry
from bpgo.core.interfaces import Reward
from bpgo.errors import UserError
from bpgo.files import repository_root
from bpgo.rewards import load_reward
from bpgo.seeding import generator, numpy_generator
from bpgo.settings import RewardSettings

FILES = sorted((repository_root() / "config" / "rewards").glob("*.yaml"))
COUNT = 24


def settings_of(file: Path) -> RewardSettings:
    values = config.read_yaml(file)
    return config.validate(registry.load_reward_class(values["kind"]).Settings, values, str(file))


@cache
def reward_of(file: Path) -> Reward:
    settings = settings_of(file)
    if settings.environment != "main":
        pytest.skip(f"runs in the environment '{settings.environment}'")
    return load_reward(settings)


@cache
def pairs() -> tuple[Tensor, list[str]]:
    """Scenes that meet their caption, and two images of noise."""
    from bpgo.scenes.captions import sample_captions
    from bpgo.scenes.render import render_batch, sample_scene

    draws, captions = numpy_generator(1, "contract"), sample_captions(COUNT, 1, "evaluation")
    scenes = [sample_scene(caption, draws) for caption in captions[:-2]]
    noise = torch.rand(2, 3, 24, 24, generator=generator(1, "contract"))
    images = torch.cat([torch.from_numpy(render_batch(scenes)).float(), noise])
    return images, [caption.text for caption in captions]


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def reward(request: pytest.FixtureRequest) -> Reward:
    return reward_of(request.param)


def test_every_kind_has_a_file() -> None:
    assert {settings_of(file).kind for file in FILES} == set(registry.REWARDS)


def test_one_number_an_image(reward: Reward) -> None:
    found = reward(*pairs())
    assert found.shape == (COUNT,)
    assert found.dtype == torch.float32
    assert found.isfinite().all()
    assert not found.requires_grad


def test_deterministic(reward: Reward) -> None:
    assert torch.equal(reward(*pairs()), reward(*pairs()))


def test_inputs_are_left_alone(reward: Reward) -> None:
    images, texts = pairs()
    given, words = images.clone(), list(texts)
    reward(given, words)
    assert torch.equal(given, images)
    assert words == texts


def test_batched_is_the_single_ones(reward: Reward) -> None:
    images, texts = pairs()
    together = reward(images, texts)
    alone = torch.cat([reward(images[k : k + 1], texts[k : k + 1]) for k in range(COUNT)])
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-5)
    turned = reward(images.flip(0), texts[::-1])
    torch.testing.assert_close(turned, together.flip(0), rtol=1e-4, atol=1e-5)


def test_the_image_and_the_text_count(reward: Reward) -> None:
    images, texts = pairs()
    assert len(reward(images[:1].expand(COUNT, -1, -1, -1), texts).unique()) > 1
    assert len(reward(images, texts[:1] * COUNT).unique()) > 1


def test_as_many_texts_as_images(reward: Reward) -> None:
    images, texts = pairs()
    with pytest.raises((ValueError, UserError)):
        reward(images, texts[:-1])


def test_settings_are_checked_without_torch() -> None:
    """The workflow checks settings in an environment that may not have torch."""
    modules = [*registry.REWARDS.values(), *registry.ARMS.values(), "bpgo.config"]
    script = (
        "import importlib, json, sys\n"
        f"[importlib.import_module(name) for name in {modules!r}]\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'peft', 'pandas'}\n"
        "print(json.dumps(sorted(heavy & set(sys.modules))))"
    )
    found = subprocess.run(
        [sys.executable, "-c", script],
        cwd=repository_root(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(found.stdout) == []
