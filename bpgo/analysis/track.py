"""The offline track of trust rules, from judged groups to table, figure and page."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from bpgo.analysis.figures import style
from bpgo.analysis.figures.offline import CAPTION, trust_rules
from bpgo.analysis.statistics.efficiency import COLUMNS, KEYS, track_statistics
from bpgo.analysis.tables.format import save_table
from bpgo.analysis.tables.trust import trust_table
from bpgo.config.settings import Settings
from bpgo.errors import UserError
from bpgo.storage.files import read_json, write_text
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
    picture = base64.b64encode((output / f"{made.name}.png").read_bytes()).decode("ascii")
    environment = Environment(
        loader=PackageLoader("bpgo.analysis", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("trust.html.j2").render(
        title=f"Trust rules on stored groups: {settings.title}",
        scale=settings.scale,
        groups=settings.trust_groups,
        picture=f"data:image/png;base64,{picture}",
        caption=CAPTION,
        table=made,
    )
    write_text(output / "index.html", page)


def _read(folder: Path) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    for name in ("judged.parquet", "rules.json"):
        if not (folder / name).is_file():
            raise UserError(f"{folder / name}: no such file; run `rules` first")
    file = folder / "judged.parquet"
    try:
        table = read_table(file, "run `rules` again", [*KEYS, "prompt_id", *COLUMNS])
        notes: list[dict[str, Any]] = read_json(folder / "rules.json")
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{file}: cannot be read: {reason}; run `rules` again") from None
    return table, notes
