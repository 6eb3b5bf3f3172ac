"""Whether an arm's further policies fit this machine's GPUs, told before the first job."""

from __future__ import annotations

from collections.abc import Sequence

from bpgo.config.settings import Settings
from bpgo.errors import UserError
from bpgo.run.machine import GpuDevice
from bpgo.storage import hub
from bpgo.tools.architectures import architecture_of
from bpgo.tools.planning import counts
from bpgo.tools.planning.model import (
    USABLE,
    ModelSize,
    arms_that_do_not_fit,
    memory,
    model_size,
)
from bpgo.tools.screen import gigabytes


def further_policies_refused(settings: Settings, gpus: Sequence[GpuDevice]) -> str | None:
    """Why training cannot start, where an arm's further policies are what does not fit.

    None where there are no GPUs, where the model's size cannot be told at once, and where training
    would not fit without them either: that is the doctor's to say. No torch is imported.
    """
    if not gpus or not settings.machine.gpus or (size := _size_known_at_once(settings)) is None:
        return None
    largest = max(gpus, key=lambda gpu: gpu.gigabytes)
    refused = arms_that_do_not_fit(settings, size, largest.gigabytes)
    if not refused:
        return None
    arms = "; ".join(
        f"arms.{name} keeps {', '.join(f'{key} ({gigabytes(one)})' for key, one in kept.items())}"
        for name, (kept, _) in refused.items()
    )
    least = memory(settings, size).with_further(0, 0).least
    most = max(needed for _, needed in refused.values())
    return (
        f"{arms}: further policies beside the trained one, for which the largest GPU here,"
        f" {largest.name} with {gigabytes(largest.gigabytes)}, has no room. Training needs a GPU"
        f" with {gigabytes(most / USABLE)} with them, {gigabytes(least / USABLE)} without. What"
        f" fits: {_adapter(settings, largest.gigabytes)}experiments without {', '.join(refused)}"
    )


def _size_known_at_once(settings: Settings) -> ModelSize | None:
    """The model's size, if nothing has to be counted or fetched for it."""
    model = settings.model
    found = architecture_of(model, hub.present(model.path, model.revision))
    if found is None or not counts.are_stored(found):
        return None
    try:
        return model_size(settings)
    except UserError:
        return None


def _adapter(settings: Settings, there: float) -> str:
    """`training.parameters: lora`, where that is another choice and fits."""
    training = settings.training.model_copy(update={"parameters": "lora"})
    changed = settings.model_copy(update={"training": training})
    needed = memory(changed, model_size(changed)).least / USABLE
    if settings.training.parameters == "lora" or needed > there:
        return ""
    return f"training.parameters: lora ({gigabytes(needed)}), or "
