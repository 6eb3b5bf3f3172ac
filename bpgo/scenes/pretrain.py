"""Makes the embedded worlds' weights from nothing: codec, policy, reward models; then video's.

A seed names every draw of the image world's codec, policy and rewards, so another seed gives a
replicate of it; seed 0 is the shipped set. The defaults are the settings that made the shipped
weights. One thread is what they were made with; another number of threads, or another machine,
gives other last bits.

Stages can be made side by side and joined: ``first`` is the codec and the policy's first two
courses; ``policy``, the third course, and each world's rewards start from it. What they make is
what one call after the other makes.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from diffusers import AutoencoderKL

from bpgo.errors import UserError, suggest
from bpgo.scenes.course import say
from bpgo.scenes.image import codec as codec_stage
from bpgo.scenes.image import level as level_stage
from bpgo.scenes.image import reward_training as reward_stage
from bpgo.scenes.image import sft
from bpgo.scenes.image.policy import Policy, build_policy, load_policy, save_policy
from bpgo.scenes.image.reward_models import RewardModel
from bpgo.scenes.video.pretrain import pretrain_video
from bpgo.scenes.weights import ABOUT, policy_folder, save_reward, seed_of, write_about
from bpgo.scenes.worlds import POOLS, WORLDS, Pool, World, check_seed, world_of
from bpgo.seeding import derive_seed
from bpgo.storage.digests import DIGESTS, verify, write_digests
from bpgo.storage.files import atomic_directory

Part = Literal["images", "video"]
PARTS: tuple[Part, ...] = get_args(Part)
STAGES: tuple[str, ...] = (*PARTS, "first", "policy", *WORLDS)

SHIPPED_SEED = 0


def train_codec(steps: int | None = None, seed: int = SHIPPED_SEED) -> AutoencoderKL:
    """Train the codec, then its decoder alone (``steps`` for each)."""
    few = _few(steps)
    codec = codec_stage.train_codec(seed=seed, **few)
    codec_stage.refine_decoder(codec, seed=seed, **few)
    say("codec", codec_stage.reconstruction_scores(codec, 512 if steps is None else 16))
    return codec


def train_policy(
    codec: AutoencoderKL, steps: int | None = None, seed: int = SHIPPED_SEED
) -> Policy:
    """First two courses of the base policy, around a codec."""
    few, count = _few(steps), 512 if steps is None else 16
    policy = sft.train_policy(codec.eval().requires_grad_(False), seed=seed, **few)
    say("policy, first course", sft.policy_scores(policy, count))
    policy = sft.continue_policy(policy, seed=_course_seed(seed, 1), **few)
    say("policy, second course", sft.policy_scores(policy, count))
    return policy


def loosen_policy(
    output: Path, policy: Policy, steps: int | None = None, seed: int = SHIPPED_SEED
) -> Policy:
    """Third course of the base policy; save the pipeline in ``output``/policy."""
    policy = sft.loosen_policy(policy, seed=_course_seed(seed, 2), **_few(steps))
    save_policy(policy, policy_folder(output))
    say("policy", sft.policy_scores(policy, 512 if steps is None else 16))
    return policy


def _course_seed(seed: int, course: int) -> int:
    """Of a later course: no other set's, whatever its seed below 65536."""
    return seed * 2**16 + course


def train_rewards(
    output: Path,
    policy: Policy,
    world: World,
    steps: int | None = None,
    seed: int = SHIPPED_SEED,
) -> dict[tuple[Pool, int], RewardModel]:
    """Train all reward models of one world, saved in ``output``/rewards/``world``."""
    share = 1.0 if steps is None else 0.01
    models = {}
    for pool in POOLS:
        pairs = reward_stage.preference_pairs(policy, pool, seed, share)
        fresh = reward_stage.mutated_pairs(
            1000 if steps is None else 16, derive_seed(seed, "fresh pairs", pool), "held_out"
        )
        for member in [number for each, number in world.models() if each == pool]:
            model = _train_reward(policy, pairs, world, (pool, member), steps, seed)
            save_reward(model, world.name, pool, output, member)
            accuracy = reward_stage.preference_accuracy(model, fresh, world, pool)
            say(
                f"reward {world.name} {pool} {member}",
                {"accuracy on held-out mutated pairs": accuracy},
            )
            models[pool, member] = model
    return models


def _train_reward(
    policy: Policy,
    pairs: reward_stage.Pairs,
    world: World,
    which: tuple[Pool, int],
    steps: int | None,
    seed: int,
) -> RewardModel:
    """One model of a world; on the level of its twin at full contrast, where the world says so."""
    enough = reward_stage.STEPS if steps is None else steps
    model = reward_stage.train_reward(pairs, world, *which, enough, seed)
    if not world.full_level:
        return model
    full = replace(world, reduced_contrast=False)
    twin = reward_stage.train_reward(pairs, full, *which, enough, seed)
    count = level_stage.CAPTIONS if steps is None else 8
    samples = reward_stage.sampled_pairs(policy, count, derive_seed(seed, "level", *which) % 2**31)
    images = torch.cat((samples.first, samples.second))
    return level_stage.put_on_level(model, twin, images, samples.texts * 2)


def pretrain_all(
    output: Path, steps: int | None = None, world: Part | None = None, seed: int = SHIPPED_SEED
) -> None:
    """Make the whole weights folder; ``output`` appears at the end, whole or not at all.

    Args:
        output: weights that are there are replaced; anything else is refused.
        steps: training steps of every stage, on a few scenes, for a test; None for the real thing.
        world: make the part of one world only, for :func:`join`; None makes both.
        seed: of the image world; the video world has the shipped seed alone.

    Raises:
        UserError: ``output`` is there and holds no weights; a seed that is not allowed.
    """
    torch.set_num_threads(1)
    check_seed(seed)
    with _weights_folder(output) as folder:
        if world in (None, "images"):
            _pretrain_images(folder, steps, seed)
        if world in (None, "video"):
            pretrain_video(folder, steps)


def _pretrain_images(folder: Path, steps: int | None, seed: int) -> None:
    policy = train_policy(train_codec(steps, seed), steps, seed)
    # As published reward models do, these learn from images of an earlier generator.
    for world in WORLDS.values():
        train_rewards(folder, policy, world, steps, seed)
    loosen_policy(folder, policy, steps, seed)
    write_about(folder, seed)


def pretrain_stage(
    output: Path,
    stage: str,
    first: Path | None = None,
    steps: int | None = None,
    seed: int = SHIPPED_SEED,
) -> None:
    """Make one stage's part of the weights folder, for :func:`join`.

    Args:
        output: see :func:`pretrain_all`.
        stage: one of STAGES; ``images`` and ``video`` are whole parts.
        first: what the stage ``first`` made; needed by ``policy`` and by the worlds.
        steps: see :func:`pretrain_all`.
        seed: see :func:`pretrain_all`.

    Raises:
        UserError: an unknown stage or seed; no ``first``, or one of another seed; ``output`` is
            there and holds no weights.
    """
    if stage not in STAGES:
        raise UserError(
            f"--stage: '{stage}' is unknown.{suggest(stage, STAGES)} Known: {', '.join(STAGES)}"
        )
    for part in PARTS:
        if stage == part:
            pretrain_all(output, steps, part, seed)
            return
    torch.set_num_threads(1)
    check_seed(seed)
    start = None if stage == "first" else _first_policy(first, stage, seed)
    with _weights_folder(output) as folder:
        if start is None:
            save_policy(train_policy(train_codec(steps, seed), steps, seed), policy_folder(folder))
        elif stage == "policy":
            loosen_policy(folder, start, steps, seed)
        else:
            train_rewards(folder, start, world_of(stage), steps, seed)
        write_about(folder, seed)


def _first_policy(first: Path | None, stage: str, seed: int) -> Policy:
    if first is None:
        raise UserError(f"--first: the stage '{stage}' needs the folder that the stage first made")
    _check_part(first, seed)
    return _as_built(load_policy(policy_folder(first)))


def _as_built(loaded: Policy) -> Policy:
    """The same weights in modules that were not loaded: these would write down where from."""
    config = loaded.codec.config
    codec = codec_stage.build_codec()
    codec.load_state_dict(loaded.codec.state_dict())
    codec.register_to_config(
        shift_factor=config["shift_factor"], scaling_factor=config["scaling_factor"]
    )
    built = build_policy(codec)
    for name in ("transformer", "text_encoder", "text_encoder_2"):
        getattr(built, name).load_state_dict(getattr(loaded, name).state_dict())
    for module in (codec, built.transformer, built.text_encoder, built.text_encoder_2):
        module.eval().requires_grad_(False)
    return built


def _check_part(part: Path, seed: int | None) -> None:
    """``part`` is whole, and of the same seed (None: any)."""
    if not part.is_dir():
        raise UserError(f"{part}: no such folder of weights")
    verify(part)
    found = seed_of(part)
    if None not in (found, seed) and found != seed:
        raise UserError(f"{part / ABOUT}: its seed is {found}, but {seed} is wanted")


def join(parts: list[Path], output: Path) -> None:
    """Put parts, made side by side, into one weights folder.

    Raises:
        UserError: a part is not there, not whole, or of another seed than the others; ``output`` is
            there and holds no weights.
    """
    seed: int | None = None
    for part in parts:
        _check_part(part, seed)
        seed = seed_of(part) if seed is None else seed
    with _weights_folder(output) as folder:
        for part in parts:
            shutil.copytree(part, folder, dirs_exist_ok=True)


@contextmanager
def _weights_folder(output: Path) -> Iterator[Path]:
    """A temporary folder that becomes ``output``, with digests."""
    output = Path(output)
    if output.exists() and not (output / DIGESTS).is_file() and not _empty(output):
        raise UserError(f"--output: '{output}' exists and holds no weights; name a new folder")
    with atomic_directory(output) as folder:
        yield folder
        write_digests(folder)


def _empty(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _few(steps: int | None) -> dict[str, Any]:
    """Arguments of a stage that only shows that it runs."""
    return {} if steps is None else {"steps": steps, "scenes": 64}
