"""`python -m bpgo plan`: what a configuration will do and cost, before anything starts."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bpgo.config import resolve as config
from bpgo.config.overlays import Files
from bpgo.config.settings import Settings
from bpgo.errors import UserError
from bpgo.run import machine
from bpgo.tools.planning.cost import Disk, Time, disk_of, time_of
from bpgo.tools.planning.devices import known_gpu
from bpgo.tools.planning.model import Memory, ModelSize, host_gigabytes, memory, model_size
from bpgo.tools.planning.rates import CPU_FLOPS, Rates, bench_folder, rates_of
from bpgo.tools.planning.work import Work, work_of

ASSUMED_GPU = "H100"  # where this machine has none and the model needs one
PATIENCE = 3600.0  # seconds of one iteration on this machine's cores: with more, it needs a GPU


@dataclass(frozen=True)
class Plan:
    """A configuration's work and cost on devices of one kind."""

    settings: Settings
    work: Work
    size: ModelSize
    device: str  # `cpu` or a GPU's name
    device_gigabytes: float
    assumed: bool  # that device: this machine has no GPU
    rates: Rates
    time: Time
    disk: Disk
    memory: Memory
    host: float  # gigabytes of the machine's own memory, for one job

    @property
    def fitting_batch(self) -> int:
        """Samples in one forward pass that the device's memory takes."""
        return self.memory.batch_that_fits(self.device_gigabytes)


def make_plan(
    configfile: Files,
    scale: str = "full",
    gpu: str | None = None,
    devices: int | None = None,
    folder: Path | None = None,
) -> Plan:
    """Plan a configuration.

    Args:
        configfile: as `resolve` takes it.
        scale: `full` or `smoke`.
        gpu: a GPU's name; by default this machine's, and an assumed one where the model needs one.
        devices: GPUs, or cores without a GPU; by default this machine's.
        folder: of benchmark figures.

    Raises:
        UserError: for a mistake in the configuration, an unknown GPU or an unknown architecture.
    """
    settings = config.load(configfile, scale)
    work, size = work_of(settings), model_size(settings)
    here = machine.gpus()
    device, assumed = gpu or (here[0].name if here else "cpu"), False
    if device == "cpu" and needs_gpu(settings, size, machine.cores()):
        device, assumed = ASSUMED_GPU, True
    known = known_gpu(device)
    count = devices or (machine.cores() if device == "cpu" else max(1, len(here)))
    if device == "cpu":  # jobs side by side share the machine's memory
        gigabytes = machine.memory_bytes() / machine.GB / count
    elif here and gpu is None:
        gigabytes = here[0].gigabytes
    else:
        gigabytes = float(known.gigabytes) if known else 0.0
    rates = rates_of(settings, size, device, folder or bench_folder())
    run = devices_of_a_run(settings)
    return Plan(
        settings,
        work,
        size,
        device,
        gigabytes,
        assumed,
        rates,
        time_of(work, size, rates, count, run, shared_cores=device == "cpu"),
        disk_of(settings, work, size, max(1, count // run)),
        memory(settings, size),
        host_gigabytes(settings, size),
    )


def devices_of_a_run(settings: Settings) -> int:
    """GPUs of one training run (cores, where it uses none)."""
    return max(1, settings.machine.gpus)


def needs_gpu(settings: Settings, size: ModelSize, cores: int) -> bool:
    """Whether one training iteration would take these cores more than an hour."""
    operations = max(
        run.forwards * size.transformer.forward_flops
        + run.updates * size.update_flops
        + run.decoded * size.decoder_flops
        for run in work_of(settings).groups
        if run.rule == "train"
    )
    return operations / settings.training.iterations / (CPU_FLOPS * cores) > PATIENCE


def as_json(plan: Plan) -> dict[str, Any]:
    """Every figure of the plan."""
    work, time = plan.work, plan.time
    return {
        "title": plan.settings.title,
        "scale": plan.settings.scale,
        "model": plan.settings.model.title,
        "transformer_parameters": plan.size.transformer.parameters,
        "trained_parameters": plan.size.trained,
        "jobs": work.jobs,
        "runs": len(plan.settings.runs()),
        "forwards": {
            rule: work.total("forwards", rule)
            for rule in ("draw", "train", "sample_base", "sample")
        },
        "updates": work.total("updates"),
        "images": work.total("decoded"),
        "images_written": work.total("files"),
        "reward_calls": work.total("reward_calls"),
        "texts": work.texts,
        "device": plan.device,
        "device_assumed": plan.assumed,
        "devices": time.devices,
        "devices_of_a_run": time.devices_of_a_run,
        "rates": asdict(plan.rates),
        "seconds_by_rule": time.by_rule,
        "device_hours": time.device_hours,
        "wall_hours": time.wall / 3600,
        "disk_gigabytes": {**plan.disk.lasting, "while runs go on": plan.disk.passing},
        "memory_gigabytes": {
            **plan.memory.standing,
            **plan.memory.passing,
            "each sample of a batch": plan.memory.per_sample,
            "least": plan.memory.least,
        },
        "host_memory_gigabytes": plan.host,
        "batch_that_fits": plan.fitting_batch,
    }


def check_scale(scale: str) -> None:
    """`UserError` for an unknown scale."""
    if scale not in ("full", "smoke"):
        raise UserError(f"--scale: '{scale}' is unknown. Allowed: full, smoke")
