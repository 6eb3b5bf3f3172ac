"""The commands on configurations, before anything runs; `bpgo.cli` adds them to its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bpgo.cli_options import ConfigFile, Output, Overlays, files_or_default, given_files
from bpgo.errors import UserError


def resolve(
    output: Output,
    configfile: ConfigFile = None,
    overlays: Overlays = None,
    scale: Annotated[str, typer.Option("--scale", help="full or smoke")] = "full",
) -> None:
    """Check a configuration and write it with everything inlined."""
    from bpgo.config import resolve as config

    if scale not in ("full", "smoke"):
        raise UserError(f"--scale: '{scale}' is unknown. Allowed: full, smoke")
    config.save_resolved(config.load(files_or_default(configfile, overlays), scale), output)


def doctor(
    configfile: Annotated[
        Path | None,
        typer.Option("--configfile", help="This one, and those laid over it; else all in config/."),
    ] = None,
    overlays: Overlays = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Say what this machine can run, and what is missing; exit code 1 if something is."""
    from bpgo.tools.doctor.run import doctor as body

    raise typer.Exit(body(given_files(configfile, overlays), as_json))


def plan(
    configfile: ConfigFile = None,
    overlays: Overlays = None,
    scale: Annotated[str, typer.Option("--scale", help="full or smoke")] = "full",
    gpu: Annotated[str | None, typer.Option("--gpu", help="Such as H100; else this one's.")] = None,
    devices: Annotated[
        int | None, typer.Option("--devices", min=1, help="GPUs, or cores without a GPU.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Say what a configuration will do and cost, before anything starts."""
    from bpgo.tools.planning.report import show_plan

    show_plan(files_or_default(configfile, overlays), scale, gpu, devices, as_json)


def _kinds() -> list[tuple[str, str]]:
    """What a shell completes."""
    from bpgo.tools.schema.files import KINDS

    return list(KINDS.items())


def schema(
    of: Annotated[
        str | None,
        typer.Option(
            "--of",
            help="Of which files: config, overlay, arms, trust and others.",
            autocompletion=_kinds,
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", help="Else it is printed.")] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Write config/schema and docs/configuration.md anew.")
    ] = False,
) -> None:
    """Print the JSON schema of the configurations that people write."""
    from bpgo.tools.schema.command import schema as body

    typer.echo(body(of, output, everything), nl=False)


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    for command in (resolve, doctor, plan, schema):
        app.command()(command)
