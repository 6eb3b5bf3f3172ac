"""The commands that measure policies beside their scores; `bpgo.cli` adds them to its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Config = Annotated[Path, typer.Option("--config", help="Resolved configuration (from `resolve`).")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Run seed.")]
Prompts = Annotated[Path, typer.Option("--prompts", help="Prompt set, JSONL.")]
Output = Annotated[Path, typer.Option("--output", help="Where to write.")]
Threads = Annotated[int, typer.Option("--threads", min=1, help="torch threads.")]


def harm(
    config: Config,
    experiment: Annotated[str, typer.Option("--experiment", help="Name of the experiment.")],
    arm: Annotated[str, typer.Option("--arm", help="Name of the arm.")],
    seed: Seed,
    prompts: Prompts,
    run: Annotated[Path, typer.Option("--run", help="Training run's folder.")],
    samples: Annotated[Path, typer.Option("--samples", help="The run's samples.")],
    base: Annotated[Path, typer.Option("--base", help="The base policy's samples.")],
    output: Output,
    threads: Threads = 1,
) -> None:
    """Measure a trained policy's divergence, diversity and distance."""
    from bpgo.config.resolve import load_resolved

    settings = load_resolved(config)
    from bpgo.config.runs import Run
    from bpgo.steps.harm import harm_run

    chosen = Run(experiment, arm, seed)
    harm_run(settings, chosen, prompts, run, samples, base, output, threads)


def harm_base(
    config: Config, seed: Seed, prompts: Prompts, output: Output, threads: Threads = 1
) -> None:
    """Measure the untrained policy's diversity, for every experiment."""
    from bpgo.config.resolve import load_resolved

    settings = load_resolved(config)
    from bpgo.steps.harm import harm_base as body

    body(settings, seed, prompts, output, threads)


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command()(harm)
    app.command("harm-base")(harm_base)
