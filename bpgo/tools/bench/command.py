"""The options of `bench`. What it imports is light: every command reads this file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def bench(
    output: Annotated[Path, typer.Option("--output", help="Where to write.")],
    configfile: Annotated[Path, typer.Option("--configfile")] = Path("config/config.yaml"),
    repeats: Annotated[int | None, typer.Option("--repeats", min=1)] = None,
    arms: Annotated[
        str | None,
        typer.Option("--arms", help="Of a configuration: names with commas. Default: all."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", help="flux, sd3 or wan21: its architecture, without weights."),
    ] = None,
    random_weights: Annotated[bool, typer.Option("--random-weights")] = False,
    size: Annotated[str, typer.Option("--size", help="full or tiny")] = "full",
    dtype: Annotated[str, typer.Option("--dtype", help="bfloat16 or float32")] = "bfloat16",
    resolution: Annotated[
        int | None, typer.Option("--resolution", min=8, help="Pixels, the height.")
    ] = None,
    width: Annotated[int | None, typer.Option("--width", min=8, help="Pixels, of a clip.")] = None,
    frames: Annotated[int | None, typer.Option("--frames", min=1, help="Of a clip.")] = None,
    prompts: Annotated[int, typer.Option("--prompts", min=1, help="In an iteration.")] = 2,
    group_size: Annotated[int, typer.Option("--group-size", min=2)] = 4,
    steps: Annotated[
        int | None,
        typer.Option("--steps", min=2, help="Sampling steps. Default: as the model trains."),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", min=1, help="Default: as many as fit.")
    ] = None,
    parameters: Annotated[str, typer.Option("--parameters", help="lora, full or both")] = "both",
    compiled: Annotated[
        bool, typer.Option("--compile/--no-compile", help="Also with torch.compile.")
    ] = True,
    checkpointing: Annotated[
        bool | None,
        typer.Option("--checkpointing/--no-checkpointing", help="Default: as the model's file."),
    ] = None,
    reward: Annotated[
        str, typer.Option("--reward", help="brightness, or clip_h14: of HPSv2's size")
    ] = "brightness",
) -> None:
    """Measure an iteration's parts: of a configuration, or of a model's architecture (--model)."""
    if model is None:
        from bpgo.tools.bench.run import run_bench

        chosen = arms.split(",") if arms is not None else None
        run_bench(configfile, output, repeats or 5, arms=chosen)
        return
    from bpgo.tools.bench.large import bench_command
    from bpgo.tools.bench.large_models import Sizes

    sizes = Sizes(
        model,
        size,
        dtype,
        resolution,
        prompts,
        group_size,
        steps,
        checkpointing,
        width,
        frames,
    )
    bench_command(
        sizes, output, random_weights, parameters, compiled, batch_size, reward, repeats or 2
    )
