"""Scores of the calibration's samples by rewards, as a table and as a file.

Importing this file does not import torch: where all scores are known, a job is done in a second.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from bpgo.config.digests import digest_of
from bpgo.config.settings import Settings
from bpgo.errors import NonFiniteError
from bpgo.records import PromptBatch, Samples
from bpgo.run.progress import Progress
from bpgo.steps.draws import Draws
from bpgo.storage.seals import again
from bpgo.storage.tables import read_table, write_table

if TYPE_CHECKING:
    from torch import Tensor

    from bpgo.interfaces import Policy, Reward

Scores = dict[str, list[float]]  # of all samples, by reward
KEYS = ["prompt_id", "sample"]


def score_draws(
    policy: Policy, draws: Draws, rewards: dict[str, Reward], progress: Progress
) -> Scores:
    """Decode the samples part by part, and score them by each reward.

    Raises:
        NonFiniteError: naming the reward and prompt.
        UserError: for a part that cannot be read.
    """
    found: Scores = {name: [] for name in rewards}
    for chosen, latents in draws.parts():
        scored = _score(policy, latents.to(policy.device), rewards, chosen)
        for name, values in scored.items():
            found[name] += _finite(name, chosen, values.tolist())
        progress.add(len(chosen) // draws.group)
    return found


def score_table(draws: Draws, names: Iterable[str], scores: Scores) -> pd.DataFrame:
    """Rows (prompt_id, ambiguity, sample, reward, score): part by part, reward by reward."""
    names, frames, start = list(names), [], 0
    for rows in draws.rows():
        chosen = draws.batch[rows]
        for name in names:
            frames.append(
                score_frame(chosen, draws.group, name, scores[name][start : start + len(rows)])
            )
        start += len(rows)
    return pd.concat(frames, ignore_index=True)


def score_frame(chosen: PromptBatch, group: int, reward: str, scores: list[float]) -> pd.DataFrame:
    """Rows of one reward for some samples, group by group."""
    return pd.DataFrame(
        {
            "prompt_id": chosen.ids,
            "ambiguity": chosen.ambiguities,
            "sample": [row % group for row in range(len(chosen))],
            "reward": reward,
            "score": _finite(reward, chosen, scores),
        }
    )


def call(name: str, reward: Reward, samples: Samples) -> Tensor:
    """The rewards `[B]` of some samples; a full memory is explained."""
    from bpgo.run import memory

    with memory.reward_explained(f"calibration, reward '{name}'"):
        return reward(samples)


def scales(
    settings: Settings, names: Iterable[str], table: pd.DataFrame
) -> dict[str, dict[str, float]]:
    """Mean and standard deviation of every reward that a sum among `names` is made of."""
    found = {}
    sums = [settings.rewards[name].part_names() for name in names]
    for part in dict.fromkeys(part for parts in sums for part in parts):
        scores = table[table.reward == part].score
        found[part] = {"mean": float(scores.mean()), "std": float(scores.std())}
    return found


def save_scores(
    path: Path, settings: Settings, drawn: str, table: pd.DataFrame, of: str = ""
) -> None:
    """Write a `score_table` with, in each row, what the score depends on (see `read_scores`).

    `of`: whose scores they are (`bpgo.config.contents`).
    """
    made = {name: _made_of(settings, drawn, str(name)) for name in table.reward.unique()}
    write_table(table.assign(digest=table.reward.map(made)), path, of)


def read_scores(path: Path, settings: Settings, drawn: str, draws: Draws, of: str = "") -> Scores:
    """Those scores in `path` that are of these samples, by a reward that is as it is now.

    `drawn` is the digest of the samples' settings (`bpgo.config.jobs.draw_digest`).

    Raises:
        UserError: if the file is missing, cannot be read, or holds others than `of`.
    """
    columns = [*KEYS, "reward", "score", "digest"]
    table = read_table(path, again("calibrate"), columns, of)
    rows = [(name, sample) for name in draws.batch.ids for sample in range(draws.group)]
    found: Scores = {}
    for name, kept in table.groupby("reward", sort=False):
        same = (
            name in settings.rewards and (kept.digest == _made_of(settings, drawn, str(name))).all()
        )
        if same and list(zip(*(kept[key] for key in KEYS), strict=True)) == rows:
            found[str(name)] = kept.score.tolist()
    return found


def _made_of(settings: Settings, drawn: str, name: str) -> str:
    """Digest of what a reward's scores of the samples depend on."""
    return digest_of(drawn, settings.settings_of([name]))


def _score(
    policy: Policy, latents: Tensor, rewards: dict[str, Reward], chosen: PromptBatch
) -> dict[str, Tensor]:
    """Scores `[B]` of the samples of `latents` by each reward."""
    from bpgo.core.scoring import score_latents

    def each(samples: Samples) -> dict[str, Tensor]:
        return {name: call(name, reward, samples) for name, reward in rewards.items()}

    return score_latents(latents, chosen, policy.settings, policy.decode, each)


def _finite(reward: str, chosen: PromptBatch, scores: list[float]) -> list[float]:
    for prompt, score in zip(chosen.ids, scores, strict=True):
        if not math.isfinite(score):
            raise NonFiniteError(f"reward '{reward}' gives {score} for prompt '{prompt}'")
    return scores
