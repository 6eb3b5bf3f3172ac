"""`python -m bpgo agree` and `paired`: two results folders, compared.

Of one configuration with other seeds or in another world of the same kind, or of two configurations
with the same seeds.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from bpgo.analysis.figures import style
from bpgo.analysis.figures.agreement import agreement as draw
from bpgo.analysis.statistics.agreement import agreement
from bpgo.analysis.statistics.folders import (
    all_differences,
    check_comparable,
    load_results,
    settings_between,
)
from bpgo.analysis.statistics.paired import paired
from bpgo.analysis.tables.agreement import agreement_table
from bpgo.analysis.tables.format import Table, save_table, to_markdown
from bpgo.analysis.tables.paired import paired_table
from bpgo.config.settings import Settings


def agree_command(first: Path, second: Path, output: Path) -> str:
    """Write `output`/agreement.csv, .md, .tex, .png and .pdf; gives the Markdown.

    The first folder's analysis settings judge both.

    Raises:
        UserError: a folder without results, configurations that differ in more than seeds and the
            world's weights, no difference in common, or one seed only.
    """
    settings, data = load_results(first)
    names = (str(first), str(second))
    table, figure = compared(settings, all_differences(settings, data), second, names)
    output.mkdir(parents=True, exist_ok=True)
    save_table(table, output)
    with style.look():
        style.save_figure(figure, output, "agreement")
    return to_markdown(table)


def compared(
    settings: Settings, differences: pd.DataFrame, second: Path, names: tuple[str, str]
) -> tuple[Table, Figure]:
    """Table and figure of how a run's `differences` agree with the results in `second`.

    Raises:
        UserError: as of `agree_command`.
    """
    others, data = load_results(second)
    check_comparable(settings, others, names)
    rows = agreement(settings, differences, all_differences(settings, data), names)
    with style.look():
        figure = draw(settings, rows, names)
    return agreement_table(settings, rows, names), figure


def paired_command(first: Path, second: Path, output: Path) -> str:
    """Write `output`/paired.csv, .md and .tex; gives the Markdown.

    The first folder's analysis settings judge both.

    Raises:
        UserError: a folder without results, scores that do not compare, or no run in common.
    """
    names = (str(first), str(second))
    (settings, one), (others, two) = load_results(first), load_results(second)
    differing = settings_between(settings, others, names)
    table = paired_table(settings, paired(settings, one, two, names), names, differing)
    output.mkdir(parents=True, exist_ok=True)
    save_table(table, output)
    return to_markdown(table)
