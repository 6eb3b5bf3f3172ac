"""The offline track of trust rules, from judged groups to table, figure and page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from bpgo.analysis.figures import style
from bpgo.analysis.figures.offline import CAPTION, trust_rules
from bpgo.analysis.page import render, stamp
from bpgo.analysis.pictures import csv_uri, file_uri
from bpgo.analysis.statistics.efficiency import COLUMNS, KEYS, track_statistics
from bpgo.analysis.tables.format import interval_text, number, save_table
from bpgo.analysis.tables.trust import trust_table
from bpgo.config.settings import Settings
from bpgo.errors import UserError
from bpgo.storage.files import write_text
from bpgo.storage.seals import again, read_sealed
from bpgo.storage.tables import read_table


def make_track(settings: Settings, judged: Path, output: Path) -> None:
    """Write `output`/trust.{csv,md,tex,png,pdf} and index.html from what `rules` wrote.

    Raises:
        UserError: a file is missing or cut.
    """
    table, notes = _read(Path(judged))
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    frame = track_statistics(table, notes, settings.analysis)
    made = trust_table(settings, frame)
    save_table(made, output)
    with style.look():
        style.save_figure(trust_rules(frame), output, made.name)
    page = render(
        "trust.html.j2",
        title=f"Trust rules on stored groups: {settings.title}",
        stamp=stamp(settings),
        scale=settings.scale,
        groups=settings.trust_groups,
        source=file_uri(output / f"{made.name}.png"),
        caption=CAPTION,
        table=made,
        best=best_rules(settings, frame),
        csv=csv_uri(made.data),
    )
    write_text(output / "index.html", page)


def best_rules(settings: Settings, frame: pd.DataFrame) -> list[str]:
    """A sentence for each world: the rules whose interval of efficiency lies above that of none."""
    said = []
    for (experiment, source), part in frame.groupby(["experiment", "source"], sort=False):
        better = part[part["efficiency_low"] > 1].sort_values("efficiency", ascending=False)
        named = ", ".join(
            f"{row['rule']} {number(row['efficiency'], digits=2)}"
            f" {interval_text(row['efficiency_low'], row['efficiency_high'], digits=2)}"
            for row in better.to_dict("records")
        )
        world = settings.experiments[str(experiment)].title
        world += "" if source == "base" else f", runs of {source}"
        said.append(f"{world}. More efficient than no rule: {named or 'none'}.")
    return said


def _read(folder: Path) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    for name in ("judged.parquet", "rules.json"):
        if not (folder / name).is_file():
            raise UserError(f"{folder / name}: no such file; run `rules` first")
    file = folder / "judged.parquet"
    table = read_table(file, again("rules"), [*KEYS, "prompt_id", *COLUMNS])
    notes: list[dict[str, Any]] = read_sealed(
        folder / "rules.json", again("rules"), needs={"notes": list}
    )["notes"]
    return table, notes
