"""Commands on results that are there: no part of the workflow.

Heavy imports stand inside the commands, so that each starts with what it needs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()

Output = Annotated[Path, typer.Option("--output", help="Where to write.")]


@app.command()
def power(
    folder: Annotated[Path, typer.Argument(help="Results of a pilot, with `collected`.")],
    effect: Annotated[
        float, typer.Option("--effect", help="Difference, in within-prompt base sd.")
    ] = 0.15,
    output: Annotated[Path | None, typer.Option("--output", help="Write the table too.")] = None,
) -> None:
    """How many seeds a difference needs, by reward."""
    from bpgo.analysis.power import power_command

    typer.echo(power_command(folder, effect, output))


@app.command()
def agree(
    first: Annotated[Path, typer.Argument(help="Results folder, with `collected`.")],
    second: Annotated[Path, typer.Argument(help="Another, of the same configuration.")],
    output: Output,
) -> None:
    """Do two runs, with other seeds or on other machines, say the same? A table and a figure."""
    from bpgo.analysis.agree import agree_command

    typer.echo(agree_command(first, second, output))


@app.command()
def paired(
    first: Annotated[Path, typer.Argument(help="Results folder, with `collected`.")],
    second: Annotated[Path, typer.Argument(help="Another, with runs of the same seeds.")],
    output: Output,
) -> None:
    """What do two configurations make of each arm? Paired by seed, prompt and noise: a table."""
    from bpgo.analysis.agree import paired_command

    typer.echo(paired_command(first, second, output))


@app.command()
def simulate(
    output: Output,
    tables: Annotated[
        int | None, typer.Option("--tables", min=1, help="Drawn in each case. Default: 100.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
) -> None:
    """Coverage of the intervals, and bold cells by chance, on made-up runs of real variances."""
    from bpgo.analysis.simulate import simulate_command

    typer.echo(simulate_command(output, tables, seed).read_text(encoding="utf-8"))
