"""How fast a device does the parts of the work: from a benchmark, else from operations."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bpgo.config.settings import Settings
from bpgo.errors import UserError
from bpgo.run.machine import processor
from bpgo.storage.files import repository_root
from bpgo.storage.seals import read_object
from bpgo.tools.planning.devices import known_gpu, known_names
from bpgo.tools.planning.model import ModelSize
from bpgo.tools.planning.work import arm_passes

# Share of a GPU's peak that a large transformer's forward and backward pass reach without a
# benchmark to tell; the decoder's convolutions, in float32, and rewards reach less. Our assumption.
ASSUMED = {"rollout": 0.35, "update": 0.35, "decoder": 0.2}
CPU_FLOPS = 2e10  # of one core in float32: what the embedded benchmark reaches
REWARD_FLOPS = 4e11  # of an image: CLIP ViT-H/14's forward pass, the largest of the rewards
LOADING = 1e9  # bytes a second that a job reads of its models
# Start-up of a command that is not in a benchmark: imports and settings.
STARTUP_SECONDS = 4.0
# Jobs of one thread that share a machine slow each other: the embedded default's iteration takes
# 0.97 s alone and 1.25 s with another run beside it (results/reference).
SIDE_BY_SIDE = 1.3


@dataclass(frozen=True)
class Rates:
    """Seconds for one sample on one device."""

    source: str  # in words, for the report
    measured: bool
    forward: float
    update: float  # forward and backward
    decode: float
    reward: float
    startup: dict[str, float] = field(default_factory=dict)  # seconds by command
    loading: float = 0.0  # seconds of a job for its model's files

    def start(self, rule: str) -> float:
        """Seconds before the command of a rule works."""
        return self.startup.get(rule.replace("_", "-"), STARTUP_SECONDS)


def bench_folder() -> Path:
    """Where the published benchmark figures lie."""
    return repository_root() / "results" / "reference" / "bench"


def rates_of(settings: Settings, size: ModelSize, device: str, folder: Path) -> Rates:
    """The rates for a configuration on a device.

    Args:
        settings: the configuration.
        size: its model.
        device: `cpu`, or a GPU's name.
        folder: of benchmark figures, `*.json`; of several that fit, the one of this machine's
            processor counts, else the first.

    Raises:
        UserError: for a GPU whose speed is unknown, where no benchmark was made on it.
    """
    found = [(file, _read(file)) for file in sorted(folder.glob("*.json"))]
    fitting = [each for each in found if _fits_iteration(each[1], settings, device)]
    if fitting:
        file, bench = max(fitting, key=lambda each: _processor(each[1]) == processor())
        return _from_iteration(settings, bench, file)
    if device == "cpu":
        text = f"estimate: operations at an assumed {CPU_FLOPS:.0e} a second for each core"
        return _from_flops(settings, size, CPU_FLOPS, dict.fromkeys(ASSUMED, 1.0), text, False)
    gpu = known_gpu(device)
    if gpu is None:
        raise UserError(
            f"--gpu: the speed of '{device}' is unknown. Name one of: {', '.join(known_names())}"
        )
    for file, bench in found:
        if _fits_utilization(bench, size, device):
            used = bench["utilization"]["lora" if size.lora else "full"]
            text = f"measured on {bench['gpu']}: {file.name}, scaled by operations"
            return _from_flops(settings, size, gpu.peak_flops, used, text, True)
    text = (
        f"estimate: operations at an assumed {ASSUMED['rollout']:.0%} of {gpu.name}'s peak of"
        f" {gpu.peak_flops / 1e12:.0f} TFLOP/s; no benchmark of this model on this GPU is stored"
    )
    return _from_flops(settings, size, gpu.peak_flops, ASSUMED, text, False)


def _read(file: Path) -> dict[str, Any]:
    return read_object(file, "remove it, and measure again with `bench`")


def _fits_iteration(bench: dict[str, Any], settings: Settings, device: str) -> bool:
    """Whether a benchmark of whole iterations was made with this model, on this kind of device."""
    same = bench.get("model") == settings.model.title and "iteration_seconds" in bench
    if device == "cpu":
        return same and bench.get("device") == "cpu"
    here = known_gpu(device)
    return same and here is not None and here == known_gpu(str(bench.get("gpu", "")))


def _processor(bench: dict[str, Any]) -> str:
    """Of the machine that a benchmark was made on."""
    return str(bench["machine"]["hardware"]["processor"])


def _fits_utilization(bench: dict[str, Any], size: ModelSize, device: str) -> bool:
    """Whether a benchmark of an architecture was made at full size on this kind of GPU."""
    here, there = known_gpu(device), known_gpu(str(bench.get("gpu", "")))
    way = "lora" if size.lora else "full"
    same = (
        bench.get("size") == "full"
        and bench.get("pipeline") == size.architecture.pipeline
        and bench.get("transformer_parameters") == size.transformer.parameters
    )
    return same and here is not None and here == there and way in bench.get("utilization", {})


def _from_iteration(settings: Settings, bench: dict[str, Any], file: Path) -> Rates:
    """From the benchmark of `bench --configfile`: an iteration's parts, by what they did."""
    times = {part: value["median"] for part, value in bench["iteration_seconds"]["wall"].items()}
    share = {part: value["median"] for part, value in bench["shares"].items()}
    images = bench["prompts"] * bench["group_size"]
    steps = arm_passes(settings, bench["reference_arm"]).trained
    decode = share["decode"] * times["total"]
    scored = (share["training reward"] + share["diagnostics"]) * times["total"]
    before = times["rollout"] + times["reward"]  # of the update: in which part decoding is differs
    return Rates(
        source=f"measured: {file.name} ({_processor(bench)}, {bench['device']})",
        measured=True,
        forward=(before - decode - scored) / (images * bench["steps"]),
        update=times["update"] / (images * steps),
        decode=decode / images,
        reward=scored / images,
        # Jobs without a GPU find a server that has imported before.
        startup={
            name: (value.get("warm", value) if bench["device"] == "cpu" else value)["wall_seconds"]
            for name, value in bench["startup"].items()
        },
    )


def _from_flops(
    settings: Settings,
    size: ModelSize,
    peak: float,
    used: dict[str, float],
    source: str,
    measured: bool,
) -> Rates:
    layers = size.transformer
    again = layers.forward_flops if settings.model.gradient_checkpointing else 0.0
    rewards = sum(reward.gigabytes for reward in settings.rewards.values())
    return Rates(
        source=source,
        measured=measured,
        forward=layers.forward_flops / (peak * used["rollout"]),
        update=(size.update_flops + again) / (peak * used["update"]),
        decode=size.decoder_flops / (peak * used["decoder"]),
        reward=(REWARD_FLOPS if rewards else 0.0) / (peak * used["decoder"]),
        loading=(settings.model.gigabytes + rewards) * 1e9 / LOADING,
    )
