"""`python -m bpgo bench --model`: rollout and update of a published architecture on this device.

Every case goes through the core that trains: `Trainer`, `Updater`, the shipped arms, the model's
adapter. Only weights, text embeddings and the reward are stand-ins. What does not fit is recorded
as such, and the other cases go on.
"""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from bpgo.config.settings import Settings
from bpgo.core.trainer import Trainer
from bpgo.errors import UserError
from bpgo.interfaces import Policy, Reward
from bpgo.records import Calibration, PromptBatch
from bpgo.registry import load_arm_class
from bpgo.run import machine
from bpgo.run.manifest import manifest
from bpgo.run.progress import Progress
from bpgo.steps import loading
from bpgo.storage.files import write_json, write_text
from bpgo.tools.architectures import Architecture
from bpgo.tools.bench.figures import iteration_figures, rollout_figures
from bpgo.tools.bench.large_models import (
    METHOD,
    REFERENCE,
    Sizes,
    architecture,
    check_choice,
    check_sizes,
    settings_of,
)
from bpgo.tools.bench.large_report import markdown
from bpgo.tools.bench.measure import trusted_clock
from bpgo.tools.bench.random_policy import (
    REWARDS,
    compile_blocks,
    random_embeddings,
    random_policy,
    stand_in_reward,
)
from bpgo.tools.planning.devices import known_gpu
from bpgo.tools.planning.model import USABLE, ModelSize, memory, sample_size, size_of
from bpgo.tools.planning.work import gradient_passes, passes
from bpgo.tools.screen import gigabytes

PROMPTS = 8  # prompts of the set; each iteration takes some


@dataclass(frozen=True)
class Case:
    """One way of training the model."""

    parameters: str  # `lora` or `full`
    compiled: bool


@dataclass(frozen=True)
class Options:
    """How cases are measured."""

    cases: tuple[Case, ...]
    batch_size: int | None = None  # samples in one forward pass; None: as many as fit
    reward: str = "brightness"
    repeats: int = 2  # rollouts of each batch size; pairs of iterations of both arms
    backend: str = "inductor"  # of torch.compile
    threads: int = 1


def bench_command(
    sizes: Sizes,
    output: Path,
    random_weights: bool,
    parameters: str,
    compiled: bool,
    batch_size: int | None,
    reward: str,
    repeats: int,
) -> None:
    """The command `bench --model`; `UserError` for options that do not go together."""
    if not random_weights:
        raise UserError(
            "--model: an architecture is measured with random weights: add --random-weights. With"
            " weights, measure a configuration: --configfile"
        )
    ways = ("lora", "full") if parameters == "both" else (parameters,)
    cases = tuple(
        Case(way, again) for way in ways for again in ((False, True) if compiled else (False,))
    )
    # A tiny copy takes seconds: the compiler's front alone, for its back takes minutes on a CPU.
    backend = "inductor" if sizes.size == "full" else "eager"
    run_model_bench(sizes, Options(cases, batch_size, reward, repeats, backend), output)


def run_model_bench(
    sizes: Sizes, options: Options, output: Path, device: str | None = None
) -> dict[str, Any]:
    """Measure one architecture; writes `bench_{model}.json` and `.md` in `output`.

    Args:
        sizes: the model and what an iteration computes.
        options: cases and repeats.
        output: a folder.
        device: a torch device; by default `cuda` where there is one.

    Returns:
        What the JSON file holds.

    Raises:
        UserError: for a model, reward or case that is unknown.
    """
    _check(sizes, options)
    chosen = architecture(sizes)
    # Always as for an adapter: the short way of importing for full weights leaves out peft.
    first = settings_of(sizes, "lora", batch_size=1)
    prepared = loading.prepare_process(first, options.threads)
    device = prepared if device is None else device
    found = _header(sizes, options, first, chosen, device)
    with Progress(f"bench: {sizes.model}", len(options.cases)) as progress:
        for done, case in enumerate(options.cases, start=1):
            found["cases"].append(measure_case(sizes, options, case, chosen, device))
            found["utilization"] = utilization_of(found["cases"])
            # After each case: a job that is killed later has left what it measured.
            write_json(output / f"bench_{sizes.model}.json", found)
            write_text(output / f"bench_{sizes.model}.md", markdown(found))
            progress.step(done)
    return found


def _check(sizes: Sizes, options: Options) -> None:
    check_sizes(sizes)
    check_choice("--reward", options.reward, list(REWARDS))
    for case in options.cases:
        check_choice("--parameters", case.parameters, ["lora", "full"])


def _header(
    sizes: Sizes, options: Options, settings: Settings, chosen: Architecture, device: str
) -> dict[str, Any]:
    size, on_gpu = size_of(settings, chosen), torch.device(device).type == "cuda"
    gpu = torch.cuda.get_device_name(device) if on_gpu else ""
    layers = size.transformer
    return {
        **asdict(sizes),
        "steps": settings.rollout.steps,
        "resolution": settings.model.resolution,
        "width": settings.model.columns,
        "frames": settings.model.frames,
        "makes": settings.model.makes,
        "sample": sample_size(settings),
        "pipeline": chosen.pipeline,
        "title": settings.model.title,
        "transformer_parameters": layers.parameters,
        "tokens": layers.tokens,
        "guidance_scale": settings.rollout.guidance_scale,
        "passes_per_step": passes(settings, settings.rollout.guidance_scale),
        "forward_flops": layers.forward_flops,
        "reward": options.reward,
        "repeats": options.repeats,
        "compile_backend": options.backend,
        "device": device,
        "gpu": gpu,
        "peak_flops": known_peak(device, sizes.dtype),
        "device_gigabytes": _device_gigabytes(device),
        "clock": trusted_clock(torch.device(device)),
        "machine": manifest(),
        "cases": [],
        "utilization": {},
    }


def measure_case(
    sizes: Sizes, options: Options, case: Case, chosen: Architecture, device: str
) -> dict[str, Any]:
    """One case's figures, or why there are none."""
    found: dict[str, Any] = asdict(case)
    most = options.batch_size or sizes.prompts * sizes.group_size
    settings = settings_of(sizes, case.parameters, most)
    size = size_of(settings, chosen)
    found["trained_parameters"] = size.trained
    found["gradient_checkpointing"] = settings.model.gradient_checkpointing
    # Planned memory says at once what is far too large, before minutes of filling the device.
    needed = sum(memory(settings, size).standing.values())
    there = _device_gigabytes(device) * USABLE
    if needed > there:
        found["status"] = (
            f"does not fit: weights, gradients and optimizer take {gigabytes(needed)},"
            f" {gigabytes(there)} can be used"
        )
        return found
    found["batch_size"] = most
    while found.get("status") != "measured":
        batch = found["batch_size"]
        try:
            found |= _measure(sizes, options, case, chosen, device, batch)
            found["status"] = "measured"
        except torch.OutOfMemoryError as error:
            found["status"] = f"out of memory: {str(error).split('.')[0]}"
        except Exception as error:
            if not case.compiled:
                raise
            found["status"] = f"cannot be compiled here: {' '.join(str(error).split())[:200]}"
            return found
        finally:
            if case.compiled:
                torch.compiler.reset()
            _free(device)  # clocks and what they watch hold each other: the next case needs room
        if found["status"] != "measured":
            if batch == 1 or options.batch_size:
                return found
            found["batch_size"] = batch // 2
    return found


def _measure(
    sizes: Sizes, options: Options, case: Case, chosen: Architecture, device: str, batch: int
) -> dict[str, Any]:
    settings = settings_of(sizes, case.parameters, batch)
    size = size_of(settings, chosen)
    policy = random_policy(settings, chosen, device)
    if case.compiled:
        compile_blocks(policy.transformer, options.backend)
    reward = stand_in_reward(options.reward, settings, device, sizes.size)
    with tempfile.TemporaryDirectory() as folder:
        trainers = _trainers(settings, policy, chosen, reward, Path(folder))
        _reset_peak(device)
        rollouts = rollout_figures(trainers[0], options.repeats)
        peak_rollout = _peak_gigabytes(device)
        _reset_peak(device)
        figures = iteration_figures(trainers, options.repeats)
        peak_iteration = _peak_gigabytes(device)
    return {
        **rollouts,
        **figures,
        **speeds(settings, size, figures, known_peak(device, sizes.dtype)),
        "peak_gigabytes": {"rollout": peak_rollout, "iteration": peak_iteration},
        "planned_gigabytes": memory(settings, size).training(batch),
    }


def _trainers(
    settings: Settings, policy: Policy, chosen: Architecture, reward: Reward, folder: Path
) -> list[Trainer]:
    """Of both arms, around one policy and one optimizer: two would not fit."""
    ids = [f"p{index}" for index in range(max(PROMPTS, settings.rollout.prompts_per_iteration))]
    prompts = PromptBatch(ids, [f"prompt {name}" for name in ids], [float("nan")] * len(ids))
    calibration = Calibration(0.5, 0.1, 0.0, dict.fromkeys(ids, 0.5))
    embeddings = random_embeddings(settings, chosen, len(ids))
    made = []
    for name in (REFERENCE, METHOD):
        arm: Any = settings.arms[name]
        made.append(
            Trainer(
                settings,
                policy,
                load_arm_class(arm.algorithm)(arm),
                reward,
                {},
                prompts,
                embeddings,
                calibration,
                1,
                folder / name,
                "bench",
            )
        )
    made[1].optimizer = made[1].updater.optimizer = made[0].optimizer
    return made


def speeds(
    settings: Settings, size: ModelSize, figures: dict[str, Any], peak: float | None
) -> dict[str, Any]:
    """Images a second, and the share of the device's peak, from an iteration's parts.

    `utilization` counts what the device computed, a repeated forward pass (gradient checkpointing)
    included; `model_flops` what the model needs, for the passes that were made: samples that are
    still alike are computed once. Both are None where the peak is unknown.
    """
    rollout = settings.rollout
    images = rollout.prompts_per_iteration * rollout.group_size
    seconds = {
        part: value["median"] for part, value in figures["iteration_seconds"]["wall"].items()
    }
    shares = {piece: value["median"] for piece, value in figures["shares"].items()}
    decode = max(shares["decode"] * seconds["total"], 1e-9)
    layers, copies = size.transformer, passes(settings, rollout.guidance_scale)
    made = figures["passes_made"]
    with_gradient = gradient_passes(settings)
    update_flops = with_gradient * size.update_flops
    update_flops += (copies - with_gradient) * layers.forward_flops
    again = layers.forward_flops if settings.model.gradient_checkpointing else 0.0
    operations = {
        "rollout": made["rollout"] * copies * layers.forward_flops / seconds["rollout"],
        "update": made["trained"] * (update_flops + with_gradient * again) / seconds["update"],
        "decoder": images * size.decoder_flops / decode,
    }
    needed = operations | {"update": made["trained"] * update_flops / seconds["update"]}
    inside = shares["transformer"] + shares["decode"] + shares["training reward"]
    return {
        "images_per_second": {
            "rollout": images / (seconds["rollout"] + decode),
            "update": images / seconds["update"],
            "iteration": images / seconds["total"],
        },
        "operations_per_second": needed,
        "model_flops": {part: value / peak if peak else None for part, value in needed.items()},
        "utilization": {part: value / peak if peak else None for part, value in operations.items()},
        "share_outside_models": 1 - inside,
    }


def utilization_of(cases: Iterable[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """What `plan` reads: by `lora` and `full`, of the case that trains as configured (eager)."""
    return {
        case["parameters"]: case["utilization"]
        for case in cases
        if case["status"] == "measured"
        and not case["compiled"]
        and None not in case["utilization"].values()
    }


def known_peak(device: str, dtype: str) -> float | None:
    """The device's operations a second; None where unknown, and for other types than bfloat16."""
    if torch.device(device).type != "cuda" or dtype != "bfloat16":
        return None
    found = known_gpu(torch.cuda.get_device_name(device))
    return found.peak_flops if found else None


def _device_gigabytes(device: str) -> float:
    if torch.device(device).type == "cuda":
        return float(torch.cuda.get_device_properties(device).total_memory / machine.GB)
    return machine.memory_bytes() / machine.GB


def _reset_peak(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _peak_gigabytes(device: str) -> float | None:
    """Of the device's memory since `_reset_peak`; None on a CPU, where nobody counts."""
    if torch.device(device).type != "cuda":
        return None
    return float(torch.cuda.max_memory_allocated(device) / machine.GB)


def _free(device: str) -> None:
    """Give back what a case held."""
    gc.collect()
    if torch.device(device).type == "cuda":
        torch.cuda.empty_cache()
