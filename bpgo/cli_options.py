"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bpgo.errors import UserError

Config = Annotated[Path, typer.Option("--config", help="Resolved configuration (from `resolve`).")]
Experiment = Annotated[str, typer.Option("--experiment", help="Name of the experiment.")]
Arm = Annotated[str, typer.Option("--arm", help="Name of the arm.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Run seed.")]
Prompts = Annotated[Path, typer.Option("--prompts", help="Prompt set, JSONL.")]
Draws = Annotated[Path, typer.Option("--draws", help="draws.json of `draw`.")]
Calibration = Annotated[Path, typer.Option("--calibration", help="Its calibration.json.")]
Output = Annotated[Path, typer.Option("--output", help="Where to write.")]
# A configuration, as Snakemake takes it: --configfile FIRST [FURTHER]...
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--configfile", help="Then others, to be laid over it. Default: config/config.yaml"
    ),
]
Overlays = Annotated[list[Path] | None, typer.Argument(hidden=True)]
Threads = Annotated[int, typer.Option("--threads", min=1, help="torch threads.")]


def given_files(configfile: Path | None, overlays: list[Path] | None) -> list[Path]:
    """The files of a configuration, none where the command line names none."""
    if configfile is None and overlays:
        raise UserError(f"{overlays[0]}: is no option; a configuration stands behind --configfile")
    return [] if configfile is None else [configfile, *(overlays or [])]


def files_or_default(configfile: Path | None, overlays: list[Path] | None) -> list[Path]:
    """The files of a configuration, or that of the embedded default."""
    return given_files(configfile, overlays) or [Path("config/config.yaml")]
