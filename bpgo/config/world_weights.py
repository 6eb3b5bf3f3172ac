"""Which set of weights the embedded image world comes from: the shipped one, or a replicate of it.

`world_weights: results/pretrain/seed_3` takes the base policy and all learned rewards from that
folder, which `python -m bpgo pretrain --seed 3` makes. Digests of settings then hold the digests of
these files, so other weights at the same place train again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bpgo.config.model import ModelSettings
from bpgo.config.settings import RewardSettings, Settings
from bpgo.errors import UserError
from bpgo.storage import hub
from bpgo.storage.digests import read_digests, verify
from bpgo.storage.files import text_digest

SHIPPED = "bpgo/scenes/weights"
POLICY = "policy"
_MAKE = "`snakemake --cores all pretrain --config pretrain_seed=N` makes a whole one to name"


def with_world_weights(settings: Settings, file: str) -> Settings:
    """Settings whose base policy and rewards say where their weights lie, and what these are.

    Settings without anything of the embedded image world come back as they are.

    Raises:
        UserError: the folder is missing, no folder of weights, not whole, or lacks the policy or a
            reward that the configuration names; or the model is another.
    """
    named, place = settings.world_weights, f"{file}: world_weights"
    embedded = settings.model.path == f"{SHIPPED}/{POLICY}"
    if named is not None and not embedded:
        raise UserError(
            f"{place}: '{named}' is for the embedded image world, but the model"
            f" '{settings.model.title}' is {settings.model.path}; leave the key out"
        )
    needed = {name: reward.world_file() for name, reward in settings.rewards.items()}
    if not embedded and not any(needed.values()):
        return settings
    folder = named or SHIPPED
    listed = _listed(folder, place, whole=named is not None)
    changes: dict[str, Any] = {}
    if embedded:
        changes["model"] = _placed_model(settings.model, folder, listed, place)
        changes["world_weights"] = folder
    changes["rewards"] = {
        name: _placed(name, reward, folder, needed[name], listed, place)
        for name, reward in settings.rewards.items()
    }
    return settings.model_copy(update=changes)


def _listed(folder: str, place: str, whole: bool) -> dict[str, str]:
    """The digests that a folder lists; its files are compared with them where it must be whole."""
    path = hub.local_path(folder)
    if path is None or not path.is_dir():
        raise UserError(
            f"{place}: there is no folder '{folder}' (paths are absolute, or relative to the"
            f" clone's root); {_MAKE}"
        )
    try:
        listed = read_digests(path)
        if whole:
            verify(Path(path))
    except UserError as error:
        raise UserError(f"{place}: '{folder}' cannot be used: {error}") from None
    return listed


def _placed_model(
    model: ModelSettings, folder: str, listed: dict[str, str], place: str
) -> ModelSettings:
    files = {name: digest for name, digest in listed.items() if name.startswith(f"{POLICY}/")}
    if f"{POLICY}/model_index.json" not in files:
        raise UserError(f"{place}: '{folder}' has no base policy ({POLICY}/); {_MAKE}")
    digest = text_digest(json.dumps(files, sort_keys=True))
    return model.model_copy(update={"path": f"{folder}/{POLICY}", "content": digest})


def _placed(
    name: str,
    reward: RewardSettings,
    folder: str,
    needed: str | None,
    listed: dict[str, str],
    place: str,
) -> RewardSettings:
    if needed is None:
        return reward
    if getattr(reward, "weights", None) is not None:
        raise UserError(f"{place}: it says where all rewards lie, so leave weights out of '{name}'")
    if needed not in listed:
        raise UserError(
            f"{place}: '{folder}' has no {needed}, which the reward '{name}' needs; {_MAKE}"
        )
    return reward.model_copy(update={"weights": folder, "content": listed[needed][:16]})
