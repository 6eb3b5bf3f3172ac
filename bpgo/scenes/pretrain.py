"""Makes the embedded worlds' weights from nothing: codec, policy, reward models; then video's.

The defaults are the settings that made the shipped weights. One thread is what they were made
with; another number of threads, or another machine, gives other last bits.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from diffusers import AutoencoderKL

from bpgo.errors import UserError
from bpgo.scenes.annotators import DIALS, POOLS, Pool, World
from bpgo.scenes.course import say
from bpgo.scenes.image import codec as codec_stage
from bpgo.scenes.image import reward_training as reward_stage
from bpgo.scenes.image import sft
from bpgo.scenes.image.policy import Policy, save_policy
from bpgo.scenes.image.reward_models import RewardModel
from bpgo.scenes.video.pretrain import pretrain_video
from bpgo.scenes.weights import policy_folder, save_reward, verify, write_digests
from bpgo.storage.files import atomic_directory

Part = Literal["images", "video"]
PARTS: tuple[Part, ...] = get_args(Part)

SEED = 0


def train_codec(steps: int | None = None) -> AutoencoderKL:
    """Train the codec, then its decoder alone (``steps`` for each)."""
    few = _few(steps)
    codec = codec_stage.train_codec(seed=SEED, **few)
    codec_stage.refine_decoder(codec, seed=SEED, **few)
    say("codec", codec_stage.reconstruction_scores(codec, 512 if steps is None else 16))
    return codec


def train_policy(codec: AutoencoderKL, steps: int | None = None) -> Policy:
    """First course of the base policy, around a codec."""
    few = _few(steps)
    policy = sft.train_policy(codec.eval().requires_grad_(False), seed=SEED, **few)
    say("policy, first course", sft.policy_scores(policy, 512 if steps is None else 16))
    return policy


def continue_policy(output: Path, policy: Policy, steps: int | None = None) -> Policy:
    """Second course of the base policy; save the pipeline in ``output``/policy."""
    policy = sft.continue_policy(policy, seed=SEED + 1, **_few(steps))
    save_policy(policy, policy_folder(output))
    say("policy", sft.policy_scores(policy, 512 if steps is None else 16))
    return policy


def train_rewards(
    output: Path, policy: Policy, world: World, steps: int | None = None
) -> dict[Pool, RewardModel]:
    """Train the three pools' reward models of one world, saved in ``output``/rewards/``world``."""
    share = 1.0 if steps is None else 0.01
    pairs = reward_stage.preference_pairs(policy, SEED, share)
    fresh = reward_stage.mutated_pairs(1000 if steps is None else 16, SEED + 1, "held_out")
    models = {}
    for pool in POOLS:
        few = {} if steps is None else {"steps": steps}
        model = reward_stage.train_reward(pairs, world, pool, seed=SEED, **few)
        save_reward(model, world, pool, output)
        accuracy = reward_stage.preference_accuracy(model, fresh, world, pool)
        say(f"reward {world} {pool}", {"accuracy on held-out mutated pairs": accuracy})
        models[pool] = model
    return models


def pretrain_all(output: Path, steps: int | None = None, world: Part | None = None) -> None:
    """Make the whole weights folder; ``output`` appears at the end, whole or not at all.

    Args:
        output: replaced if it exists.
        steps: training steps of every stage, on a few scenes, for a test; None for the real thing.
        world: make the part of one world only, for :func:`join`; None makes both.
    """
    torch.set_num_threads(1)
    with atomic_directory(Path(output)) as folder:
        if world in (None, "images"):
            _pretrain_images(folder, steps)
        if world in (None, "video"):
            pretrain_video(folder, steps)
        write_digests(folder)


def _pretrain_images(folder: Path, steps: int | None) -> None:
    policy = train_policy(train_codec(steps), steps)
    # As published reward models do, these learn from images of an earlier generator.
    for world in DIALS:
        train_rewards(folder, policy, world, steps)
    continue_policy(folder, policy, steps)


def join(parts: list[Path], output: Path) -> None:
    """Put the parts of the two worlds, made side by side, into one weights folder.

    Raises:
        UserError: a part is not there, or not whole.
    """
    for part in parts:
        if not part.is_dir():
            raise UserError(f"{part}: no such folder of weights")
        verify(part)
    with atomic_directory(Path(output)) as folder:
        for part in parts:
            shutil.copytree(part, folder, dirs_exist_ok=True)
        write_digests(folder)


def _few(steps: int | None) -> dict[str, Any]:
    """Arguments of a stage that only shows that it runs."""
    return {} if steps is None else {"steps": steps, "scenes": 64}
