"""The state of a training run on disk: whole or absent, checked by digest, two kept.

A checkpoint is a folder `iteration_000040/` with `weights.safetensors`, `optimizer.safetensors`,
`ema.safetensors`, `state.json` and `digests.json`. Only safetensors and JSON.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from bpgo.errors import UserError
from bpgo.storage.files import atomic_directory, read_json, sha256, write_json

KEEP = 2
FAILED, MARK = ".failed", "diverged"
PATTERN = re.compile(r"iteration_(\d{6})")
TENSORS = ("weights", "optimizer", "ema")


@dataclass(frozen=True)
class Checkpoint:
    """`iteration` is the number of finished iterations; tensors by name; `state` is JSON."""

    iteration: int
    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    ema: dict[str, Tensor]
    state: dict[str, Any]


def save(folder: Path, checkpoint: Checkpoint, config_digest: str) -> Path:
    """Write a checkpoint below `folder` and remove all but the newest `KEEP`."""
    target = folder / f"iteration_{checkpoint.iteration:06d}"
    with atomic_directory(target) as temporary:
        for name in TENSORS:
            tensors = {key: value.contiguous() for key, value in getattr(checkpoint, name).items()}
            save_file(tensors, temporary / f"{name}.safetensors")
        write_json(
            temporary / "state.json",
            {
                "iteration": checkpoint.iteration,
                "config_digest": config_digest,
                "state": checkpoint.state,
            },
        )
        digests = {file.name: sha256(file) for file in sorted(temporary.iterdir())}
        write_json(temporary / "digests.json", digests)
    for old in [*_folders(folder)[:-KEEP], *folder.glob(f"*{FAILED}")]:
        shutil.rmtree(old)
    return target


def set_aside(folder: Path, iteration: int) -> Path | None:
    """Let no run go on from the checkpoint of an iteration after which a step failed.

    It is kept beside the others, as `iteration_000040.failed`, until the next one is written:
    gives that folder, None where there is no such checkpoint.
    """
    found = folder / f"iteration_{iteration:06d}"
    if not found.is_dir():
        return None
    aside = found.with_suffix(FAILED)
    shutil.rmtree(aside, ignore_errors=True)
    return found.replace(aside)


def mark_failed(folder: Path) -> None:
    """Say that the run diverged: with other settings it starts over (see `discard_failed`)."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARK).touch()


def discard_failed(folder: Path, config_digest: str) -> None:
    """Remove the state of a run that diverged, if it is of another configuration."""
    if not (folder / MARK).exists():
        return
    try:
        found, _ = load_newest(folder, config_digest)
    except UserError:
        found = None
    if found is None:
        shutil.rmtree(folder)


def load_newest(
    folder: Path, config_digest: str, logged: int | None = None
) -> tuple[Checkpoint | None, list[str]]:
    """The newest whole checkpoint, and one line for each that was passed over.

    A broken one is, and one of more iterations than the run's logs hold (`logged`; None: all).

    Raises:
        UserError: if the newest whole checkpoint belongs to another configuration.
    """
    skipped: list[str] = []
    for path in reversed(_folders(folder)):
        if logged is not None and int(path.name.rpartition("_")[2]) > logged:
            skipped.append(f"{path}: passed over: the run's logs are whole to iteration {logged}")
            continue
        try:
            found, digest = _read(path)
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            skipped.append(f"{path}: passed over: {error}")
            continue
        if digest != config_digest:
            raise UserError(
                f"{path} belongs to another configuration: its digest is {digest}, this run's is"
                f" {config_digest}. Remove {folder.parent} to start over, or restore the settings."
            )
        return found, skipped
    return None, skipped


def _folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if PATTERN.fullmatch(path.name))


def _read(path: Path) -> tuple[Checkpoint, str]:
    digests = read_json(path / "digests.json")
    if not isinstance(digests, dict) or set(digests) != {
        "state.json",
        *(f"{name}.safetensors" for name in TENSORS),
    }:
        raise ValueError("digests.json does not list the files of a checkpoint")
    for name, expected in digests.items():
        found = sha256(path / name)
        if found != expected:
            raise ValueError(f"{name} has digest {found[:12]}, expected {expected[:12]}")
    state = read_json(path / "state.json")
    weights, optimizer, ema = (load_file(path / f"{name}.safetensors") for name in TENSORS)
    checkpoint = Checkpoint(state["iteration"], weights, optimizer, ema, state["state"])
    return checkpoint, state["config_digest"]


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's per-parameter state, flat: `"{parameter index}.{name}"`."""
    found: dict[str, Tensor] = {}
    seen: set[int] = set()  # safetensors takes no tensor twice; weights share a table in 8 bit
    for index, entry in optimizer.state_dict()["state"].items():
        for name, value in entry.items():
            # bitsandbytes hands out its 8-bit parts as one mapping, and takes them back as entries.
            inner = value if isinstance(value, dict) else {name: value}
            for part, each in inner.items():
                tensor = torch.as_tensor(each)
                shared = tensor.data_ptr() in seen
                seen.add(tensor.data_ptr())
                found[f"{index}.{part}"] = tensor.clone() if shared else tensor
    return found


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put `optimizer_tensors` back into an optimizer over the same parameters."""
    state: dict[int, dict[str, Any]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        # torch counts steps in a float tensor, bitsandbytes in a Python integer.
        counted = value.ndim == 0 and not value.is_floating_point()
        state.setdefault(int(index), {})[name] = value.item() if counted else value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
