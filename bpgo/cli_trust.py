"""The commands that train nothing: of trust rules and of worlds; `bpgo.cli` adds them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bpgo.cli_options import Config, Output, Overlays, Prompts, Threads


def groups(
    config: Config,
    arm: Annotated[str, typer.Option("--arm", help="An experiment's reference arm.")],
    seed: Annotated[int, typer.Option("--seed", min=0, help="As of a training run.")],
    prompts: Prompts,
    output: Output,
    threads: Threads = 1,
) -> None:
    """Draw and score groups of the base policy, as training would see them."""
    from bpgo.config.resolve import load_resolved

    settings = load_resolved(config)
    from bpgo.steps.groups import groups as body

    body(settings, arm, seed, prompts, output, threads)


def rules(
    config: Config,
    configfile: Annotated[
        Path, typer.Option("--configfile", help="Its folder has the rules, in trust/.")
    ],
    root: Annotated[Path, typer.Option("--root", help="Folder of trust/groups and calibration.")],
    output: Output,
    overlays: Overlays = None,
    run: Annotated[
        list[Path] | None, typer.Option("--run", help="A trained run, whose groups join.")
    ] = None,
) -> None:
    """Give every trust rule the stored groups; nothing is trained."""
    from bpgo.config.resolve import load_resolved, load_rules

    settings = load_resolved(config)
    known = load_rules([configfile, *(overlays or [])], settings.scale)
    from bpgo.steps.rules import rules as body

    body(settings, known, root, run or [], output)


def track(
    config: Config,
    judged: Annotated[Path, typer.Option("--judged", help="Folder that `rules` wrote.")],
    output: Output,
) -> None:
    """How good each rule's update is and how well it tells right groups: table, figure, page."""
    from bpgo.analysis.track import make_track
    from bpgo.config.resolve import load_resolved

    make_track(load_resolved(config), judged, output)


def worlds(
    output: Output,
    weights: Annotated[
        str | None, typer.Option("--weights", help="Folder of weights; else the shipped one.")
    ] = None,
    groups: Annotated[int, typer.Option("--groups", help="Groups drawn in each world.")] = 256,
) -> None:
    """How alike the judges of each world are, and what gives ambiguity and reliability away."""
    from bpgo.tools.worlds import worlds as body

    body(weights, groups, output)


def add_to(app: typer.Typer) -> None:
    """Make them commands of `app`."""
    for command in (groups, rules, track, worlds):
        app.command()(command)
