"""Groups as a table: a row for each sample, a column for each reward; written whole, read checked.

Columns: `iteration`, `prompt_id`, `ambiguity`, `sample`, then rewards by name in their own units.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from bpgo.core.scoring import PART
from bpgo.errors import UserError
from bpgo.storage.files import atomic_path
from bpgo.storage.tables import read_arrow

KEYS = ["iteration", "prompt_id", "ambiguity", "sample"]
DIGEST = b"config_digest"  # in the file's metadata


@dataclass(frozen=True)
class Batch:
    """The P groups of one iteration; `scores` `[P, G]` by reward, float32; `ambiguity` `[P]`."""

    iteration: int
    prompt_ids: list[str]
    ambiguity: Tensor
    scores: dict[str, Tensor]


def save_groups(path: Path, digest: str, table: pd.DataFrame) -> None:
    """Write `path` with the digest of the settings that it follows from."""
    made = pa.Table.from_pandas(table, preserve_index=False)
    made = made.replace_schema_metadata({DIGEST: digest.encode()})
    with atomic_path(path) as temporary:
        pq.write_table(made, temporary, compression="zstd", write_page_checksum=True)


def read_groups(path: Path, digest: str, rewards: list[str]) -> list[Batch]:
    """What `save_groups` wrote with the same settings, an entry for each iteration.

    Raises:
        UserError: the file is missing, cut, of other settings, or lacks something.
    """
    made = _read(path, "run `groups` first")
    found = (made.schema.metadata or {}).get(DIGEST, b"none").decode()
    if found != digest:
        raise UserError(
            f"{path}: made with other settings: its config_digest is {found}, this configuration's"
            f" is {digest}; remove it, and run `groups` (or the workflow) again"
        )
    return _batches(path, made.to_pandas(), rewards)


def read_rollouts(path: Path, training_reward: str, known: list[str]) -> list[Batch]:
    """The groups of a trained run, from its `rollouts.parquet`.

    The training reward has its name here, parts of a sum theirs; of `known` rewards those are
    there that the run logged.

    Raises:
        UserError: the file is missing, cut, or lacks something.
    """
    table = _read(path, "it belongs to a run that was trained").to_pandas()
    names = {name: name.removeprefix(PART) for name in table if str(name).startswith(PART)}
    table = table.rename(columns={**names, "reward": training_reward})
    there = [name for name in dict.fromkeys([training_reward, *known]) if name in table]
    return _batches(path, table, there)


def _read(path: Path, what: str) -> pa.Table:
    return read_arrow(path, what)


def _batches(path: Path, table: pd.DataFrame, rewards: list[str]) -> list[Batch]:
    missing = [name for name in [*KEYS, *rewards] if name not in table]
    if missing:
        raise UserError(f"{path}: has no column {', '.join(missing)}")
    for name in rewards:
        bad = int((~np.isfinite(table[name].to_numpy(float))).sum())
        if bad:
            raise UserError(f"{path}: {bad} scores by {name} are NaN or infinite")
    found = []
    for iteration, rows in table.groupby("iteration", sort=True):
        prompts = list(dict.fromkeys(rows["prompt_id"]))
        size, rest = divmod(len(rows), len(prompts))
        expected = [(prompt, sample) for prompt in prompts for sample in range(size)]
        if rest or list(zip(rows["prompt_id"], rows["sample"], strict=True)) != expected:
            raise UserError(f"{path}: iteration {iteration} does not hold whole groups in order")
        ambiguity = torch.tensor(rows["ambiguity"].to_numpy(float)[::size].copy())
        scores = {
            name: torch.tensor(rows[name].to_numpy(np.float32)).view(len(prompts), size)
            for name in rewards
        }
        found.append(Batch(int(str(iteration)), prompts, ambiguity, scores))
    return found
