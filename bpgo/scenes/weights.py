"""The embedded world's shipped weights and their digests.

``weights/digests.json`` holds the SHA-256 of every other file below ``weights/``. Whoever loads a
part of it calls :func:`verify` first. This module imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from bpgo.errors import UserError
from bpgo.storage.files import read_json, sha256, write_json

if TYPE_CHECKING:
    from bpgo.scenes.annotators import Pool, World
    from bpgo.scenes.image.reward_models import RewardModel
    from bpgo.scenes.video.captions import Task

WEIGHTS = Path(__file__).parent / "weights"
DIGESTS = "digests.json"
REMEDY = (
    "Restore the file from the repository (git checkout), or make all weights again with "
    "`snakemake --cores all pretrain`."
)


def policy_folder(weights: Path = WEIGHTS) -> Path:
    """The base policy, a FluxPipeline folder."""
    return weights / "policy"


def reward_file(world: World, pool: Pool, weights: Path = WEIGHTS) -> Path:
    """The weights of one reward model."""
    return weights / "rewards" / world / f"pool_{pool}.safetensors"


def clip_policy_folder(task: Task, weights: Path = WEIGHTS) -> Path:
    """The base policy of a task in the video world, a Wan pipeline folder."""
    return weights / "video" / task


def clip_reward_file(pool: Pool, weights: Path = WEIGHTS) -> Path:
    """The weights of one reward model of the video world."""
    return weights / "video" / "rewards" / f"pool_{pool}.safetensors"


def write_digests(weights: Path) -> None:
    """Write ``digests.json`` for all files now below ``weights``."""
    files = sorted(path for path in weights.rglob("*") if path.is_file() and path.name != DIGESTS)
    digests = {path.relative_to(weights).as_posix(): sha256(path) for path in files}
    write_json(weights / DIGESTS, digests)


def verify(path: Path) -> None:
    """Check a file, or all files of a folder, against the ``digests.json`` above it.

    A path with no ``digests.json`` in it or above it (up to three levels) is not ours to check.

    Raises:
        UserError: a file is missing or its digest differs; names the file, the digest expected,
            the digest found and the remedy.
    """
    path = Path(path).resolve()
    for root in (path, *path.parents[:3]):
        if (root / DIGESTS).is_file():
            break
    else:
        return
    name = path.relative_to(root).as_posix()
    expected = {
        file: digest
        for file, digest in read_json(root / DIGESTS).items()
        if name in (".", file) or file.startswith(f"{name}/")
    }
    if not expected:
        raise UserError(f"{path}: not listed in {root / DIGESTS}. {REMEDY}")
    for file, digest in sorted(expected.items()):
        if not (root / file).is_file():
            raise UserError(f"{root / file}: file is missing, expected sha256 {digest}. {REMEDY}")
        found = sha256(root / file)
        if found != digest:
            raise UserError(
                f"{root / file}: file is corrupted, expected sha256 {digest}, found {found}. "
                f"{REMEDY}"
            )


def save_reward(model: RewardModel, world: World, pool: Pool, weights: Path) -> None:
    """Write the weights of a reward model; the file appears whole or not at all."""
    _save(model, reward_file(world, pool, weights), f"{world}/{pool}")


def save_clip_reward(model: RewardModel, pool: Pool, weights: Path) -> None:
    """As :func:`save_reward`, of the video world."""
    _save(model, clip_reward_file(pool, weights), f"video/{pool}")


def _save(model: RewardModel, file: Path, name: str) -> None:
    from safetensors.torch import save_file

    from bpgo.storage.files import atomic_path

    tensors = {key: tensor.contiguous() for key, tensor in model.state_dict().items()}
    with atomic_path(file) as temporary:
        # One key: safetensors writes several in any order, and equal weights shall be equal files.
        save_file(tensors, temporary, metadata={"reward": name})


def load_reward(
    world: World, pool: Pool, device: str = "cpu", weights: Path = WEIGHTS
) -> RewardModel:
    """Load a reward model in evaluation mode, without gradients, after a check of its digest.

    Raises:
        UserError: the file is missing, corrupted, or does not fit the architecture.
    """
    from bpgo.scenes.image.reward_models import build_reward

    return _load(reward_file(world, pool, weights), lambda: build_reward(pool), weights).to(device)


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
