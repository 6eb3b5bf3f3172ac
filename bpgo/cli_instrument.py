"""The commands that search for settings; `bpgo.cli` adds them to its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bpgo.cli_options import Config, Output, Overlays, Threads


def instrument(
    configfile: Annotated[
        Path,
        typer.Option("--config", "--configfile", help="Configuration, as for `resolve`."),
    ],
    search: Annotated[Path, typer.Option("--search", help="Such as config/instrument.yaml.")],
    output: Output,
    overlays: Overlays = None,
    only: Annotated[
        str | None, typer.Option("--only", help="This candidate alone, without table and figure.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="Likewise: this tuning seed alone.")
    ] = None,
    threads: Threads = 1,
) -> None:
    """Measure candidate training settings by two anchors, on tuning seeds: table and figure."""
    from bpgo.config.search import load_search

    checked = load_search(search, [configfile, *(overlays or [])])
    from bpgo.tools.instrument.command import instrument as body

    body(checked, output, only, seed, threads)


def tune(
    config: Config,
    collected: Annotated[Path, typer.Option("--collected", help="Folder that `collect` wrote.")],
    output: Output,
) -> None:
    """Choose the best of each arm's candidates: table, figure, page, and an overlay."""
    from bpgo.analysis.tune import make_tuning
    from bpgo.config.resolve import load_resolved

    make_tuning(load_resolved(config), collected, output)


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    for command in (instrument, tune):
        app.command()(command)
