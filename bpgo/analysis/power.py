"""`python -m bpgo power`: how many seeds a difference needs, from a pilot's scores."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from bpgo.analysis.statistics.folders import load_results
from bpgo.analysis.statistics.power import EFFECT
from bpgo.analysis.statistics.power import power as power_of
from bpgo.analysis.tables.differences import power as power_table
from bpgo.analysis.tables.format import save_table, to_markdown
from bpgo.errors import UserError


def power_command(folder: Path, effect: float = EFFECT, output: Path | None = None) -> str:
    """The table as Markdown, of the results in `folder`; with `output` also written there.

    Raises:
        UserError: no results there, or one seed of every arm.
    """
    settings, data = load_results(folder)
    frames = [power_of(settings, scores, effect) for scores in data.scores.values()]
    frame = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
    if frame.empty:
        raise UserError(
            f"{folder}: has no two arms with two or more seeds in common, so nothing is known of"
            " the variance between seeds; run at least two seeds"
        )
    table = power_table(settings, frame)
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        save_table(table, output)
    return to_markdown(table)
