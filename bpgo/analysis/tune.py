"""Equal tuning, from collected scores to what was chosen: table, figure, page and an overlay."""

from __future__ import annotations

from pathlib import Path

import yaml

from bpgo.analysis.figures import style
from bpgo.analysis.figures.tuning import CAPTION, tuning_gains
from bpgo.analysis.page import render, stamp
from bpgo.analysis.pictures import csv_uri, file_uri
from bpgo.analysis.statistics.data import load_collected
from bpgo.analysis.statistics.tuning import chosen_names, search_rows, tuning_summary
from bpgo.analysis.tables.format import save_table
from bpgo.analysis.tables.tuning import tuning_table
from bpgo.config.settings import Settings
from bpgo.config.tuning import overlay, searched
from bpgo.storage.files import atomic_path, write_text

HEAD = """\
# Made by `snakemake tune` (docs/tuning.md): what an equally sized search chose for each arm.
# snakemake --cores all --configfile config/config.yaml THIS_FILE --config root=results/tuned
"""


def make_tuning(settings: Settings, collected: Path, output: Path) -> None:
    """Write `output`/search.csv, chosen.yaml, tuning.{csv,md,tex,png,pdf} and index.html.

    A candidate that failed has its reason in search.csv and is never chosen.

    Raises:
        UserError: the configuration has no search; a collected file is missing or cut.
    """
    tune, output = searched(settings), Path(output)
    rows = search_rows(settings, load_collected(settings, collected))
    summary = tuning_summary(rows)
    output.mkdir(parents=True, exist_ok=True)
    with atomic_path(output / "search.csv") as path:
        rows.to_csv(path, index=False, float_format="%.6g", lineterminator="\n")
    chosen = yaml.safe_dump(overlay(settings, chosen_names(summary)), sort_keys=False)
    write_text(output / "chosen.yaml", HEAD + chosen)
    made = tuning_table(settings, summary)
    save_table(made, output)
    titles = {arm: str(getattr(settings.arms[arm], "title", arm)) for arm in summary["arm"]}
    with style.look():
        style.save_figure(tuning_gains(rows, summary, titles), output, made.name)
    lost = rows[rows["status"] != ""]
    page = render(
        "tuning.html.j2",
        title=settings.title,
        stamp=stamp(settings),
        tune=tune,
        source=file_uri(output / f"{made.name}.png"),
        caption=CAPTION,
        table=made,
        data_files=[("tuning.csv", csv_uri(made.data)), ("search.csv", csv_uri(rows))],
        lost=[f"{row.name}, seed {row.seed}: {row.status}" for row in lost.itertuples(index=False)],
    )
    write_text(output / "index.html", page)
