"""How fast a device does the parts of the work: from a benchmark, else from operations."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bpgo.errors import UserError
from bpgo.files import read_json, repository_root
from bpgo.planning.devices import known_gpu
from bpgo.planning.model import ModelSize
from bpgo.planning.work import trained_steps
from bpgo.settings import Settings

# Share of a GPU's peak that a large transformer's forward and backward pass reach without a
# benchmark to tell: our assumption, in the middle of what is published for such models.
UTILIZATION = 0.35
DECODER_UTILIZATION = 0.2  # convolutions, in float32
CPU_FLOPS = 5e10  # of one core in float32: what the embedded benchmark reaches
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

    def start(self, command: str) -> float:
        """Seconds before a command works."""
        return self.startup.get(command, STARTUP_SECONDS)


def bench_folder() -> Path:
    """Where the published benchmark figures lie."""
    return repository_root() / "results" / "reference" / "bench"


def rates_of(settings: Settings, size: ModelSize, device: str, folder: Path) -> Rates:
    """The rates for a configuration on a device.

    Args:
        settings: the configuration.
        size: its model.
        device: `cpu`, or a GPU's name.
        folder: of benchmark figures, `*.json`.

    Raises:
        UserError: for a GPU whose speed is unknown, where no benchmark was made on it.
    """
    found = [(file, _read(file)) for file in sorted(folder.glob("*.json"))]
    for file, bench in found:
        if _fits_iteration(bench, settings, device):
            return _from_iteration(settings, bench, file)
    gpu = known_gpu(device)
    for file, bench in found:
        if gpu and _fits_utilization(bench, size, device):
            return _from_flops(settings, size, gpu.peak_flops, _utilization(bench), f"{file.name}")
    if device == "cpu":
        return _from_flops(settings, size, CPU_FLOPS, 1.0, None)
    if gpu is None:
        raise UserError(
            f"--gpu: '{device}' is unknown and no benchmark in {folder} was made on it. Run"
            " `python -m bpgo bench --model ...` there, or name a GPU such as 'H100' or 'A100'"
        )
    return _from_flops(settings, size, gpu.peak_flops, UTILIZATION, None)
