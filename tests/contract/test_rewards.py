"""What every reward must do: each file in `config/rewards` is tested, so a new one is too."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_rewards import build_tiny_rewards, tiny_overrides
from tiny_video_rewards import build_tiny_video_rewards, video_overrides
from torch import Tensor
from untrained_world import untrained_weights

from bpgo import registry
from bpgo.config import resolve as config
from bpgo.config.settings import RewardSettings
from bpgo.errors import UserError
from bpgo.interfaces import Reward
from bpgo.records import Calibration, Samples
from bpgo.rewards import load_rewards
from bpgo.rewards.frame_mean import FrameMean
from bpgo.rewards.shared.published import PublishedReward
from bpgo.scenes.weights import WEIGHTS
from bpgo.seeding import generator, numpy_generator
from bpgo.storage.digests import read_digests
from bpgo.storage.files import repository_root

FOLDER = repository_root() / "config" / "rewards"
FILES = sorted(FOLDER.glob("*.yaml"))
COUNT = 24
FRAMES = 5


# Which have weights that are published, and so stand-ins.
PUBLISHED = {*tiny_overrides(Path()), *video_overrides(Path())}
# What a reward imports that the main environment need not have.
PACKAGES = {"hpsv2": "hpsv2", "image_reward": "ImageReward"}


def settings_of(file: Path, **changes: Any) -> RewardSettings:
    values = {**config.read_yaml(file), **changes}
    return config.validate(registry.load_reward_class(values["kind"]).Settings, values, str(file))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """By reward file, the keys that point to tiny checkpoints in the published layouts."""
    root = tmp_path_factory.mktemp("rewards")
    return {**build_tiny_rewards(root / "images"), **build_tiny_video_rewards(root / "videos")}


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights for rewards that have none among the shipped ones."""
    return untrained_weights(tmp_path_factory.mktemp("untrained"))


@pytest.fixture(scope="module", params=FILES, ids=lambda path: path.stem)
def reward(request: pytest.FixtureRequest) -> Reward:
    settings, tiny = settings_of(request.param), {}
    if PUBLISHED & {request.param.stem, *settings.part_names(), *settings.inner_names()}:
        tiny = request.getfixturevalue("tiny")
        settings = settings_of(request.param, **tiny.get(request.param.stem, {}))
    package = PACKAGES.get(settings.environment)
    if package is not None and importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed; this reward runs in an environment of its own")
    parts = {
        name: settings_of(FOLDER / f"{name}.yaml", **tiny.get(name, {}))
        for name in [*settings.part_names(), *settings.inner_names()]
    }
    shipped = read_digests(WEIGHTS)
    for name, entry in {**parts, "it": settings}.items():
        if (entry.world_file() or "digests.json") not in {*shipped, "digests.json"}:
            weights = str(request.getfixturevalue("untrained"))
            parts[name] = entry.model_copy(update={"weights": weights})
    settings = parts.pop("it", settings)
    scales = {name: {"mean": 0.1, "std": 0.5} for name in parts}
    calibration = Calibration(0.0, 1.0, -3.0, parts=scales)
    return load_rewards({**parts, "it": settings}, ["it"], calibration=calibration)["it"]


def pairs(reward: Any) -> tuple[Tensor, list[str]]:
    """Scenes that meet their caption, and two images of noise; for a reward of clips, moving."""
    parts = getattr(reward.settings, "parts", {})
    if any(name.startswith(("scenes_video", "video_")) for name in (reward.settings.kind, *parts)):
        return moving_pairs()
    images, texts = still_pairs()
    if reward.settings.media == "video":
        images = torch.stack([images.roll(frame, -1) for frame in range(FRAMES)], dim=1)
    return images, texts


def samples_of(pixels: Tensor, texts: list[str]) -> Samples:
    """As rewards see them; of clips the given first frame is the clip's own last one."""
    return Samples(pixels, texts, pixels[:, -1] if pixels.ndim == 5 else None)


@cache
def still_pairs() -> tuple[Tensor, list[str]]:
    from bpgo.scenes.captions import sample_captions
    from bpgo.scenes.image.render import render_batch, sample_scene

    draws, captions = numpy_generator(1, "contract"), sample_captions(COUNT, 1, "evaluation")
    scenes = [sample_scene(caption, draws) for caption in captions[:-2]]
    noise = torch.rand(2, 3, 24, 24, generator=generator(1, "contract"))
    images = torch.cat([torch.from_numpy(render_batch(scenes)).float(), noise])
    return images, [caption.text for caption in captions]


@cache
def moving_pairs() -> tuple[Tensor, list[str]]:
    """Clips of the embedded world that meet their caption, and two of noise."""
    from bpgo.scenes.video.captions import sample_captions
    from bpgo.scenes.video.render import render_batch, sample_scene

    draws, captions = numpy_generator(1, "contract"), sample_captions(COUNT, 1, "evaluation")
    scenes = [sample_scene(caption, draws) for caption in captions[:-2]]
    noise = torch.rand(2, FRAMES, 3, 32, 32, generator=generator(1, "contract"))
    clips = torch.cat([torch.from_numpy(render_batch(scenes)).float(), noise])
    return clips, [caption.text for caption in captions]


def test_every_kind_has_a_file() -> None:
    assert {settings_of(file).kind for file in FILES} == set(registry.REWARDS)


def test_one_number_an_image(reward: Reward) -> None:
    found = reward(samples_of(*pairs(reward)))
    assert found.shape == (COUNT,)
    assert found.dtype == torch.float32
    assert found.isfinite().all()
    assert not found.requires_grad


def test_deterministic(reward: Reward) -> None:
    samples = samples_of(*pairs(reward))
    assert torch.equal(reward(samples), reward(samples))


def test_inputs_are_left_alone(reward: Reward) -> None:
    images, texts = pairs(reward)
    given, words = images.clone(), list(texts)
    reward(samples_of(given, words))
    assert torch.equal(given, images)
    assert words == texts


def test_batched_is_the_single_ones(reward: Reward) -> None:
    images, texts = pairs(reward)
    samples = samples_of(images, texts)
    together = reward(samples)
    alone = torch.cat([reward(samples[k : k + 1]) for k in range(COUNT)])
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-5)
    turned = reward(samples_of(images.flip(0), texts[::-1]))
    torch.testing.assert_close(turned, together.flip(0), rtol=1e-4, atol=1e-5)


def test_the_image_and_the_text_count(reward: Any) -> None:
    images, texts = pairs(reward)
    one_image = reward(samples_of(images[:1].expand(COUNT, *images.shape[1:]), texts))
    assert (len(one_image.unique()) > 1) == reward.settings.reads_text
    assert len(reward(samples_of(images, texts[:1] * COUNT)).unique()) > 1


def test_the_other_media_are_refused(reward: Reward) -> None:
    if not isinstance(reward, (PublishedReward, FrameMean)):
        pytest.skip("a configuration that gives it other media is refused before")
    images, texts = still_pairs()
    if reward.settings.media == "image":
        images = images[:, None]
    with pytest.raises(UserError, match=r"but it was given (images|clips): "):
        reward(samples_of(images, texts))


def test_settings_are_checked_without_torch() -> None:
    """The workflow checks settings in an environment that may not have torch."""
    modules = [*registry.REWARDS.values(), *registry.ARMS.values(), "bpgo.config.resolve"]
    script = (
        "import importlib, json, sys\n"
        f"[importlib.import_module(name) for name in {modules!r}]\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'peft', 'pandas', 'open_clip'}\n"
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
