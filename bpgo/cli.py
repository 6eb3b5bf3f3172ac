"""One command per workflow step. Arguments only: the work is in the rooms.

Heavy imports stand inside the commands, so that each starts with what it needs.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Annotated

import typer

from bpgo import cli_harm, cli_help, cli_instrument, cli_plan, cli_trust
from bpgo.analysis import commands
from bpgo.cli_options import (
    Arm,
    Calibration,
    Config,
    Draws,
    Experiment,
    Output,
    Prompts,
    Seed,
    Threads,
)
from bpgo.errors import RunError, StoppedElsewhereError, UserError
from bpgo.storage.files import told
from bpgo.tools.bench.command import bench

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.callback(help=cli_help.HELP)(cli_help.options)

app.add_typer(commands.app)


@app.command()
def prompts(config: Config, split: Annotated[str, typer.Option("--split")], output: Output) -> None:
    """Write a prompt set; published files are fetched where this machine lacks them."""
    from bpgo.config.resolve import load_resolved
    from bpgo.steps.prompts import write_prompts

    settings = load_resolved(config)
    for line in write_prompts(settings, split, output, settings.rewards):
        typer.echo(line, err=True)


@app.command("fetch-prompts")
def fetch_prompts(
    name: Annotated[
        str, typer.Option("--name", help="Of a file in config/prompts, or all.")
    ] = "all",
    configfile: Annotated[Path, typer.Option("--configfile")] = Path("config/config.yaml"),
) -> None:
    """Fetch and check published prompts ahead of jobs that have no network."""
    from bpgo.steps.prompts import fetch

    for line in fetch(name, configfile.parent):
        typer.echo(line)


@app.command()
def draw(
    config: Config,
    sampler: Annotated[str, typer.Option("--sampler", help="Such as dance_0p3.")],
    prompts: Prompts,
    output: Output,
    threads: Threads = 1,
) -> None:
    """Draw the base policy's samples of training prompts."""
    from bpgo.config.resolve import load_resolved

    settings = load_resolved(config)
    from bpgo.steps.draw import draw as body

    body(settings, sampler, prompts, output, threads)


@app.command()
def calibrate(
    config: Config,
    experiment: Experiment,
    prompts: Prompts,
    draws: Draws,
    output: Output,
    threads: Threads = 1,
) -> None:
    """Score those samples by the training reward."""
    from bpgo.config.resolve import load_resolved

    settings = load_resolved(config)
    from bpgo.steps.calibrate import calibrate as body

    body(settings, experiment, prompts, draws, output, threads)


@app.command()
def judge(
    config: Config,
    experiment: Experiment,
    prompts: Prompts,
    draws: Draws,
    calibration: Calibration,
    output: Output,
    threads: Threads = 1,
) -> None:
    """Score those samples by the judges."""
    from bpgo.config.resolve import load_resolved

    settings = load_resolved(config)
    from bpgo.steps.judge import judge as body

    body(settings, experiment, prompts, draws, calibration, output, threads)


@app.command()
def train(
    config: Config,
    experiment: Experiment,
    arm: Arm,
    seed: Seed,
    prompts: Prompts,
    calibration: Calibration,
    output: Output,
    threads: Threads = 1,
    record: Annotated[
        bool, typer.Option("--record-failure", help="A run that diverges is noted; no error.")
    ] = False,
    code: Annotated[
        Path | None, typer.Option("--code", help="The workflow's code as its call started.")
    ] = None,
) -> None:
    """Train one arm with one seed; the same command resumes a stopped run."""
    from bpgo.config.resolve import load_resolved

    settings = load_resolved(config)
    from bpgo.config.runs import Run
    from bpgo.steps.train import train as body

    run = Run(experiment, arm, seed)
    body(settings, run, prompts, calibration, output, threads, record, code)


@app.command()
def sample(
    config: Config,
    experiment: Experiment,
    arm: Arm,
    seed: Seed,
    prompts: Prompts,
    run: Annotated[Path, typer.Option("--run", help="Training run's folder.")],
    output: Output,
    threads: Threads = 1,
) -> None:
    """Sample a trained policy and its snapshots on the evaluation prompts."""
    from bpgo.config.resolve import load_resolved

    settings = load_resolved(config)
    from bpgo.config.runs import Run
    from bpgo.steps.sample import sample_run

    sample_run(settings, Run(experiment, arm, seed), prompts, run, output, threads)


@app.command("sample-base")
def sample_base(
    config: Config, seed: Seed, prompts: Prompts, output: Output, threads: Threads = 1
) -> None:
    """Sample the untrained policy on the evaluation prompts, for every experiment."""
    from bpgo.config.resolve import load_resolved

    settings = load_resolved(config)
    from bpgo.steps.sample import sample_base as body

    body(settings, seed, prompts, output, threads)


@app.command()
def score(
    config: Config,
    experiment: Experiment,
    arm: Arm,
    seed: Seed,
    samples: Annotated[Path, typer.Option("--samples", help="Folder with index.parquet.")],
    output: Output,
    environment: Annotated[str, typer.Option("--environment")] = "main",
    calibration: Annotated[Path | None, typer.Option("--calibration")] = None,
    threads: Threads = 1,
) -> None:
    """Score samples by every reward of one software environment."""
    from bpgo.config.resolve import load_resolved

    settings = load_resolved(config)
    from bpgo.config.runs import Run
    from bpgo.steps.score import score_run

    run = Run(experiment, arm, seed)
    score_run(settings, run, samples, environment, output, threads, calibration)


@app.command()
def collect(
    config: Config,
    root: Annotated[Path, typer.Option("--root", help="Folder of runs, scores, calibration.")],
    output: Output,
    allow_mixed: Annotated[bool, typer.Option("--allow-mixed")] = False,
) -> None:
    """Join the results of all runs into four files."""
    from bpgo.analysis.collect import collect as body
    from bpgo.config.resolve import load_resolved

    body(load_resolved(config), root, output, allow_mixed)


@app.command()
def statistics(
    config: Config, collected: Annotated[Path, typer.Option("--collected")], output: Output
) -> None:
    """Means, intervals, paired differences, curves."""
    from bpgo.analysis.statistics.compute import compute_statistics
    from bpgo.config.resolve import load_resolved

    compute_statistics(load_resolved(config), collected, output)


@app.command()
def tables(
    config: Config, statistics: Annotated[Path, typer.Option("--statistics")], output: Output
) -> None:
    """The paper's tables with ours: CSV, Markdown, LaTeX."""
    from bpgo.analysis.tables.make import make_tables
    from bpgo.config.resolve import load_resolved

    make_tables(load_resolved(config), statistics, output)


@app.command()
def plots(
    config: Config,
    statistics: Annotated[Path, typer.Option("--statistics")],
    collected: Annotated[Path, typer.Option("--collected")],
    output: Output,
) -> None:
    """The figures: PDF and PNG."""
    from bpgo.analysis.figures.make import make_figures
    from bpgo.config.resolve import load_resolved

    make_figures(load_resolved(config), statistics, collected, output)


@app.command()
def grids(
    config: Config, samples_root: Annotated[Path, typer.Option("--samples-root")], output: Output
) -> None:
    """Samples of several arms side by side, with equal seeds."""
    from bpgo.analysis.grids import make_grids
    from bpgo.config.resolve import load_resolved

    make_grids(load_resolved(config), samples_root, output)


@app.command()
def report(
    config: Config,
    statistics: Annotated[Path, typer.Option("--statistics")],
    tables: Annotated[Path, typer.Option("--tables")],
    figures: Annotated[Path, typer.Option("--figures")],
    output: Output,
    grids: Annotated[Path | None, typer.Option("--grids")] = None,
    root: Annotated[Path | None, typer.Option("--root")] = None,
    second: Annotated[
        Path | None, typer.Option("--second", help="Results of a second run, to compare.")
    ] = None,
) -> None:
    """One self-contained HTML page."""
    from bpgo.analysis.report import make_report
    from bpgo.config.resolve import load_resolved

    settings = load_resolved(config)
    make_report(settings, statistics, tables, figures, output, grids, root, second)


@app.command()
def pretrain(
    output: Output,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Fewer, for a try.")] = None,
    threads: Threads = 1,
    seed: Annotated[
        int, typer.Option("--seed", min=0, max=2**31 - 1, help="Of the image world.")
    ] = 0,
    stage: Annotated[
        str | None, typer.Option("--stage", help="Only this part, such as images or a world.")
    ] = None,
    first: Annotated[
        Path | None, typer.Option("--first", help="Folder of the stage first.")
    ] = None,
    parts: Annotated[
        list[Path] | None, typer.Option("--part", help="Parts to put together, made before.")
    ] = None,
) -> None:
    """Make the embedded worlds' weights again, from nothing."""
    import torch

    from bpgo.scenes.pretrain import join, pretrain_all, pretrain_stage

    torch.set_num_threads(threads)
    if parts:
        join(parts, output)
    elif stage is not None:
        pretrain_stage(output, stage, first, steps, seed)
    else:
        pretrain_all(output, steps, seed=seed)


app.command()(bench)
for further in (cli_plan, cli_trust, cli_harm, cli_instrument):
    further.add_to(app)


@cache
def all_commands() -> Callable[[], None]:
    """The commands with their options; the server of warm jobs has them made before it forks."""
    commands: Callable[[], None] = cli_help.arrange(typer.main.get_command(app))
    return commands


def main() -> None:
    """Run a command; a user's mistake becomes one message and exit code 2."""
    # Imports make a million objects that stay. Looking for garbage among them less often saves a
    # tenth of the start-up.
    gc.set_threshold(100_000, 50, 100)
    try:
        all_commands()()
    except StoppedElsewhereError as error:  # the process that failed says why
        sys.exit(error.exit_code)
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except (UserError, OSError, MemoryError, RuntimeError) as error:
        print(f"error: {told(error)}", file=sys.stderr)
        sys.exit(2)
