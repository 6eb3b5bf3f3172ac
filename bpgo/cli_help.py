"""How the list of commands is arranged, and what the program says of itself."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from bpgo import __version__

HELP = (
    "Train and compare GRPO variants and BPGO. `make results` and Snakemake call the steps of the"
    " workflow in order; the other commands are for you."
)
# Every command stands in one group; a test compares.
GROUPS = {
    "Before anything runs": ["doctor", "plan", "resolve", "schema", "fetch-prompts"],
    "On results that are there": ["agree", "paired", "power", "simulate", "worlds"],
    "Further measurements": ["bench", "groups", "rules", "track", "instrument", "tune", "pretrain"],
    "Steps of the workflow: training": ["prompts", "draw", "calibrate", "judge", "train"],
    "Steps of the workflow: judging": ["sample", "sample-base", "score", "harm", "harm-base"],
    "Steps of the workflow: from scores to the report": [
        "collect",
        "statistics",
        "tables",
        "plots",
        "grids",
        "report",
    ],
}
FURTHER = "Further commands"  # of those that no group names


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"bpgo {__version__}")
        raise typer.Exit


def options(
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_show_version, help="Print the version."),
    ] = False,
) -> None:
    """The program's own options."""


def arrange(group: Any) -> Any:
    """Put typer's commands into groups, in the order in which the groups name them.

    Their own help is plain: in 80 columns, frames would cut the names of options.
    """
    places = {name: title for title, names in GROUPS.items() for name in names}
    found = group.commands
    order = [name for name in places if name in found]
    group.commands = {name: found[name] for name in dict.fromkeys([*order, *found])}
    for name, command in found.items():
        command.rich_help_panel = places.get(name, FURTHER)
        command.rich_markup_mode = None
    return group
