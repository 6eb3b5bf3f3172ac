"""The embedded world's weights: where each lies in a folder of them, saving and loading.

A folder has `digests.json`, which whoever loads a part of it checks first (`bpgo.storage.digests`),
and `world.json` with the seed that it was made with. The shipped one is `weights/` beside this
file. This module imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bpgo.errors import UserError
from bpgo.storage.digests import DIGESTS, REMEDY, verify
from bpgo.storage.files import read_json, write_json

if TYPE_CHECKING:
    from bpgo.scenes.image.reward_models import RewardModel
    from bpgo.scenes.video.captions import Task
    from bpgo.scenes.worlds import Pool, WorldName

WEIGHTS = Path(__file__).parent / "weights"
ABOUT = "world.json"


def policy_folder(weights: Path = WEIGHTS) -> Path:
    """The base policy, a FluxPipeline folder."""
    return weights / "policy"


def reward_name(world: WorldName, pool: Pool, member: int = 1) -> str:
    """Where the weights of one reward model lie in a folder of weights."""
    ending = f"_{member}" if member > 1 else ""
    return f"rewards/{world}/pool_{pool}{ending}.safetensors"


def reward_file(world: WorldName, pool: Pool, weights: Path = WEIGHTS, member: int = 1) -> Path:
    """The weights of one reward model."""
    return weights / reward_name(world, pool, member)


def clip_policy_folder(task: Task, weights: Path = WEIGHTS) -> Path:
    """The base policy of a task in the video world, a Wan pipeline folder."""
    return weights / "video" / task


def clip_reward_file(pool: Pool, weights: Path = WEIGHTS) -> Path:
    """The weights of one reward model of the video world."""
    return weights / "video" / "rewards" / f"pool_{pool}.safetensors"


def write_about(weights: Path, seed: int) -> None:
    """Say in ``world.json`` which seed the image world's weights were made with."""
    write_json(weights / ABOUT, {"seed": seed})


def seed_of(weights: Path) -> int | None:
    """The seed in ``world.json``; None where there is no such file.

    Raises:
        UserError: the file holds no seed.
    """
    path = weights / ABOUT
    if not path.is_file():
        return None
    try:
        return int(read_json(path)["seed"])
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{path}: must hold a seed. {REMEDY}") from None


def save_reward(
    model: RewardModel, world: WorldName, pool: Pool, weights: Path, member: int = 1
) -> None:
    """Write the weights of a reward model as float16, and take them back so rounded.

    The file appears whole or not at all.
    """
    import torch

    rounded = {
        key: tensor.to(torch.float16).contiguous() for key, tensor in model.state_dict().items()
    }
    model.load_state_dict(rounded)
    _save(rounded, reward_file(world, pool, weights, member), f"{world}/{pool}/{member}")


def save_clip_reward(model: RewardModel, pool: Pool, weights: Path) -> None:
    """Write the weights of a reward model of the video world, as float32."""
    tensors = {key: tensor.contiguous() for key, tensor in model.state_dict().items()}
    _save(tensors, clip_reward_file(pool, weights), f"video/{pool}")


def _save(tensors: dict[str, Any], file: Path, name: str) -> None:
    from safetensors.torch import save_file

    from bpgo.storage.files import atomic_path

    with atomic_path(file) as temporary:
        # One key: safetensors writes several in any order, and equal weights shall be equal files.
        save_file(tensors, temporary, metadata={"reward": name})


def load_reward(
    world: WorldName,
    pool: Pool,
    device: str = "cpu",
    weights: Path = WEIGHTS,
    member: int = 1,
) -> RewardModel:
    """Load a reward model in evaluation mode, without gradients, after a check of its digest.

    It computes in float32, whatever the file's precision.

    Raises:
        UserError: the file is missing, corrupted, or does not fit the architecture.
    """
    from bpgo.scenes.image.level import build_model
    from bpgo.scenes.worlds import world_of

    file = reward_file(world, pool, weights, member)
    return _load(file, lambda: build_model(world_of(world), pool, member), weights).to(device)


def load_clip_reward(pool: Pool, device: str = "cpu", weights: Path = WEIGHTS) -> RewardModel:
    """As :func:`load_reward`, of the video world."""
    from bpgo.scenes.video.reward_models import build_reward

    return _load(clip_reward_file(pool, weights), lambda: build_reward(pool), weights).to(device)


def _load(file: Path, build: Callable[[], RewardModel], weights: Path) -> RewardModel:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not file.is_file() and not (weights / DIGESTS).is_file():
        raise UserError(f"{file}: file is missing. {REMEDY}")
    verify(file)
    model = build()
    try:
        model.load_state_dict(load_file(file))
    except (SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{file}: not the weights of {file.stem}: {reason}. {REMEDY}") from None
    return model.eval().requires_grad_(False)
