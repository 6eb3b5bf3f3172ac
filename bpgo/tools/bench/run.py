"""`python -m bpgo bench`: measure on this machine, write `bench.json` and `bench.md`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from bpgo.config import resolve as config
from bpgo.config.runs import Run
from bpgo.config.settings import Settings
from bpgo.core.trainer import Trainer
from bpgo.models.embeddings import prompt_embeddings
from bpgo.records import Calibration
from bpgo.run.manifest import manifest
from bpgo.run.progress import Progress
from bpgo.steps import loading
from bpgo.steps.calibrate import calibrate
from bpgo.steps.draw import draw
from bpgo.steps.kept_policies import stages_of
from bpgo.steps.prompts import read_prompts, write_prompts
from bpgo.steps.train import build_trainer
from bpgo.storage.files import write_json, write_text
from bpgo.storage.tables import write_table
from bpgo.tools.bench.arms import arm_figures, settings_by_arm
from bpgo.tools.bench.figures import batch_figures, iteration_figures, rollout_figures
from bpgo.tools.bench.measure import trusted_clock
from bpgo.tools.bench.report import markdown
from bpgo.tools.bench.startup import REPEATS as STARTUP_REPEATS
from bpgo.tools.bench.startup import WORK, options_of, startup_seconds

METHOD = "bpgo"  # whose iteration is compared with the reference arm's
PAIRS_PER_REPEAT = 4  # iterations of both arms
PAIRS_OF_AN_ARM = 2  # for each repeat: iterations of each shipped arm and of the reference arm
SEED = 1


def run_bench(
    configfile: Path,
    output: Path,
    repeats: int = 5,
    threads: int = 1,
    device: str | None = None,
    arms: Sequence[str] | None = None,
    startup_of: Iterable[str] = tuple(WORK),
    startup_repeats: int = STARTUP_REPEATS,
) -> dict[str, Any]:
    """Measure one configuration: its model, its sizes, the rewards of its first experiment.

    Args:
        configfile: a configuration as `resolve` takes it.
        output: the folder of `bench.json` and `bench.md`.
        repeats: rollouts and iterations of each batch size; 4 pairs of iterations are run for
            each, and 2 of each of `arms`.
        threads: torch threads.
        device: a torch device; by default `cuda` where there is one.
        arms: whose iterations are compared with what their forward passes predict; by default all
            of the folder `arms` that the first experiment can train.
        startup_of: the commands whose start-up is timed.
        startup_repeats: fresh processes for each of them, and warm jobs.

    Returns:
        What `bench.json` holds.

    Raises:
        UserError: for a configuration without the reference arm or without `bpgo`, and for one of
            `arms` that it cannot train.
    """
    settings = config.load(configfile)
    experiment = next(iter(settings.experiments))
    compared = settings.analysis.reference_arm, METHOD
    runs = [Run(experiment, arm, SEED) for arm in compared]
    for run in runs:
        loading.check_run(settings, run)
    by_arm, skipped = settings_by_arm(Path(configfile), experiment, compared[0], arms)
    device = loading.prepare_process(settings, threads) if device is None else device
    with tempfile.TemporaryDirectory() as folder:
        files = _prepare(settings, experiment, device, threads, Path(configfile), Path(folder))
        trainers = [_trainer(settings, run, files, device) for run in runs]
        found = _header(settings, experiment, compared, trainers[0], device, threads)
        found |= rollout_figures(trainers[0], repeats)
        found |= iteration_figures(trainers, PAIRS_PER_REPEAT * repeats)
        found["batches"] = batch_figures(_trainer(settings, runs[0], files, device), repeats)
        reference = _trainer(settings, runs[0], files, device)
        each = {
            arm: _trainer(changed, Run(experiment, arm, SEED), files, device)
            for arm, changed in by_arm.items()
        }
        found["arms"] = arm_figures(reference, each, PAIRS_OF_AN_ARM * repeats)
        found["arms_left_out"] = skipped
        options = options_of(files, runs[0], settings.sampler_of(experiment))
        with Progress("bench: start-up", 1) as progress:
            kinds = [settings.model.kind] if settings.training.parameters == "full" else []
            found["startup"] = startup_seconds(startup_of, options, startup_repeats, kinds)
            progress.step(1)
    write_json(output / "bench.json", found)
    write_text(output / "bench.md", markdown(found))
    return found


def _prepare(
    settings: Settings, experiment: str, device: str, threads: int, configfile: Path, folder: Path
) -> dict[str, Path]:
    """Everything a command reads, in a temporary folder."""
    files = {
        "configfile": configfile.resolve(),
        "config": folder / "config.yaml",
        "train": folder / "prompts" / "train.jsonl",
        "evaluation": folder / "prompts" / "evaluation.jsonl",
        "draws": folder / "draws" / "draws.json",
        "calibration": folder / "calibration" / "calibration.json",
        "trained": folder / "trained",
        "samples": folder / "samples",
        "runs": folder / "runs",
        "output": folder / "output",
    }
    for split in ("train", "evaluation"):
        write_prompts(settings, split, files[split])
    # One batch of the calibration is enough: its numbers change no cost. But every prompt has a
    # prior, or its group would be spared the method.
    few = settings.calibration.model_copy(
        update={"prompts": settings.rollout.prompts_per_iteration}
    )
    small = settings.model_copy(update={"calibration": few})
    config.save_resolved(small, files["config"])
    train, draws = files["train"], files["draws"]
    draw(small, small.sampler_of(experiment).name, train, draws, threads)
    calibrate(small, experiment, train, draws, files["calibration"].parent, threads)
    known = Calibration.load(files["calibration"])
    priors = dict.fromkeys(read_prompts(files["train"]).ids, known.mean) | known.prompt_means
    replace(known, prompt_means=priors).save(files["calibration"])
    policy = loading.load_policy(settings, device, SEED)
    prompts = read_prompts(files["evaluation"])[: settings.evaluation.prompts]
    prompt_embeddings(policy, prompts, loading.embedding_cache(files["evaluation"]))
    _, first = stages_of(settings, files["trained"])[0]
    assert first is not None  # it is a trained policy's
    policy.save(first)
    files["samples"].mkdir()
    row = {
        "prompt_id": "p",
        "text": prompts.texts[0],
        "ambiguity": 0.0,
        "sample": 0,
        "iteration": 0,
    }
    write_table(pd.DataFrame([row | {"path": "p.png"}]), files["samples"] / "index.parquet")
    return files


def _trainer(settings: Settings, run: Run, files: dict[str, Path], device: str) -> Trainer:
    return build_trainer(
        settings,
        run,
        files["train"],
        files["calibration"],
        files["runs"] / run.arm,
        device,
    )


def _header(
    settings: Settings,
    experiment: str,
    arms: tuple[str, str],
    trainer: Trainer,
    device: str,
    threads: int,
) -> dict[str, Any]:
    """What was measured, and on what."""
    sizes = settings.rollout
    weights = trainer.policy.transformer.parameters()
    return {
        "title": settings.title,
        "model": settings.model.title,
        "transformer_parameters": sum(parameter.numel() for parameter in weights),
        "trained_parameters": sum(value.numel() for value in trainer.parameters.values()),
        "experiment": experiment,
        "reference_arm": arms[0],
        "method_arm": arms[1],
        "prompts": sizes.prompts_per_iteration,
        "group_size": sizes.group_size,
        "steps": sizes.steps,
        "batch_size": sizes.batch_size,
        "optimizer_steps": settings.training.optimizer_steps,
        "threads": threads,
        "device": device,
        "gpu": torch.cuda.get_device_name(device) if device.startswith("cuda") else "",
        "clock": trusted_clock(trainer.policy.device),
        "machine": manifest(),
    }
