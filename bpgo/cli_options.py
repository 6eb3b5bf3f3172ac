"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Config = Annotated[Path, typer.Option("--config", help="Resolved configuration (from `resolve`).")]
Experiment = Annotated[str, typer.Option("--experiment", help="Name of the experiment.")]
Arm = Annotated[str, typer.Option("--arm", help="Name of the arm.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Run seed.")]
Prompts = Annotated[Path, typer.Option("--prompts", help="Prompt set, JSONL.")]
Draws = Annotated[Path, typer.Option("--draws", help="draws.json of `draw`.")]
Calibration = Annotated[Path, typer.Option("--calibration", help="Its calibration.json.")]
Output = Annotated[Path, typer.Option("--output", help="Where to write.")]
Threads = Annotated[int, typer.Option("--threads", min=1, help="torch threads.")]
