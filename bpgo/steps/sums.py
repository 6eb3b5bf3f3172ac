"""Weighted sums of rewards, from a table of their parts' scores."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from bpgo.config.settings import Settings
from bpgo.records import Calibration
from bpgo.rewards.weighted_sum import WeightedSumSettings, weighted_sum


def with_sums(
    settings: Settings, names: Iterable[str], table: pd.DataFrame, calibration: Calibration | None
) -> pd.DataFrame:
    """`table` (with columns reward and score), and below it rows for the sums among `names`.

    The rows of each reward stand in the same order. See `weighted_sum` for what is raised.
    """
    frames = [table]
    for name in names:
        entry = settings.rewards[name]
        if isinstance(entry, WeightedSumSettings):
            import torch

            parts = {part: table[table.reward == part] for part in entry.parts}
            scores = {part: torch.tensor(rows.score.to_numpy()) for part, rows in parts.items()}
            total = weighted_sum(entry, scores, calibration)
            rows, given = next(iter(parts.values())), next(iter(scores.values()))
            rows = rows.assign(reward=name, score=total.to(given.dtype).numpy())
            if "cut" in rows:  # where one of the parts reads not all of the prompt
                rows["cut"] = np.any([part.cut for part in parts.values()], axis=0)
            frames.append(rows)
    return pd.concat(frames, ignore_index=True) if len(frames) > 1 else table
