"""The calibration's samples as files: final latents, a part each, and what they are samples of.

`draws.json` has the digest of the settings and of each part, `part_00000.safetensors`, ... beside
it. Whole or absent; what is read back is checked. Experiments with equal samplers
share it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bpgo.errors import UserError
from bpgo.records import PromptBatch
from bpgo.storage.files import atomic_files, read_json, sha256, text_digest, write_json

if TYPE_CHECKING:
    from torch import Tensor

LATENTS = "latents"


@dataclass(frozen=True)
class Draws:
    """Samples of `batch`, `group` of each prompt, group by group, in the parts of `files`.

    `files` names each part, beside `index`, its number of prompts and its digest.
    """

    index: Path
    batch: PromptBatch
    group: int
    files: list[tuple[str, int, str]]

    def parts(self) -> Iterator[tuple[PromptBatch, Tensor]]:
        """Of each part the prompt of every sample, and latents `[b, ...]` at noise level 0.

        The parts are those in which the samples were drawn, so that rewards see the same batches
        whenever they are asked.

        Raises:
            UserError: naming a part that is missing or was changed.
        """
        for rows, (name, _, digest) in zip(self.rows(), self.files, strict=True):
            chosen = self.batch[rows]
            yield chosen, _read_part(self.index, name, digest, len(chosen))

    def rows(self) -> list[list[int]]:
        """Of each part the row in `batch` of every sample."""
        found, start = [], 0
        for _, prompts, _ in self.files:
            rows = range(start, start + prompts)
            found.append([row for row in rows for _ in range(self.group)])
            start += prompts
        return found


def save_draws(
    path: Path, digest: str, batch: PromptBatch, group: int, parts: Iterable[Tensor]
) -> None:
    """Write `path` (`draws.json`) and the parts `[b, ...]` beside it, whole groups in each.

    Its folder may be one with other files: they stay.
    """
    from safetensors.torch import save_file

    with atomic_files(path) as folder:
        files = []
        for number, latents in enumerate(parts):
            name = f"part_{number:05d}.safetensors"
            save_file({LATENTS: latents.cpu().contiguous()}, folder / name)
            prompts = len(latents) // group
            files.append({"file": name, "prompts": prompts, "sha256": sha256(folder / name)})
        known = {"config_digest": digest, "prompts": _identity(batch), "samples_per_prompt": group}
        write_json(folder / path.name, {**known, "parts": files})


def open_draws(path: Path, digest: str, batch: PromptBatch, group: int) -> Draws:
    """What `save_draws` wrote for the same settings and prompts.

    Raises:
        UserError: if it is missing, no such file, or of other settings or prompts.
    """
    try:
        found = read_json(path)
        files = [(str(p["file"]), int(p["prompts"]), str(p["sha256"])) for p in found["parts"]]
        made_with, prompts = str(found["config_digest"]), str(found["prompts"])
    except FileNotFoundError:
        raise UserError(f"{path}: no such file: run `draw` first") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _refused(path, f"does not list a calibration's samples ({_named(error)})") from None
    if made_with != digest:
        reason = f"its config_digest is {made_with}, this configuration's is {digest}"
        raise _refused(path, f"belongs to another configuration: {reason}")
    if prompts != _identity(batch) or sum(count for _, count, _ in files) != len(batch):
        raise _refused(path, f"holds samples of other prompts than the {len(batch)} given ones")
    return Draws(path, batch, group, files)


def _read_part(index: Path, name: str, digest: str, samples: int) -> Tensor:
    """Latents `[samples, ...]`, float32, of a part that `index` lists."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        file = index.with_name(name)
        found = sha256(file)
        if found != digest:
            raise ValueError(f"its digest is {found[:12]}, expected {digest[:12]}")
        latents = load_file(file)[LATENTS]
        if len(latents) != samples or latents.dtype != torch.float32:
            raise ValueError(f"it holds {len(latents)} samples, expected {samples}")
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        reason = f"{name}: is missing or damaged ({_named(error)})"
        raise _refused(index, reason) from None
    return latents


def _identity(batch: PromptBatch) -> str:
    """Digest of prompts; the names of first frames are digests of their content."""
    frames = None if batch.first_frames is None else [frame.name for frame in batch.first_frames]
    return text_digest(json.dumps([batch.ids, batch.texts, frames]))


def _refused(file: Path, reason: str) -> UserError:
    return UserError(f"{file}: {reason}. Remove that file, and run `draw` (or the workflow) again")


def _named(error: Exception) -> str:
    text: Any = f"no {error}" if isinstance(error, KeyError) else error
    return " ".join(str(text).split())[:200]
