"""The moving averages of a run: the one that is judged, and the arm's further policies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from bpgo.config.settings import TrainingSettings
from bpgo.core.arm import Arm
from bpgo.errors import OutOfMemoryError
from bpgo.interfaces import Policy
from bpgo.run.ema import EMA, warmed_up

JUDGED = "judged"  # the average that is saved and judged in the policy's place


def averages_of(
    arm: Arm, parameters: Mapping[str, Tensor], training: TrainingSettings, device: torch.device
) -> dict[str, EMA]:
    """Each average of a run by name, as copies of the parameters of now.

    Raises:
        OutOfMemoryError: if the copies do not fit into the device's memory.
    """
    found: dict[str, EMA] = {}
    kept = arm.averages()
    try:
        if training.ema_decay > 0:
            decay = warmed_up(training.ema_decay)
            found[JUDGED] = EMA(parameters, decay, training.ema_every)
        for name, average in kept.items():
            found[name] = EMA(parameters, average.decay, by_step=average.every == "step")
    except torch.OutOfMemoryError:
        numbers = sum(value.numel() for value in parameters.values())
        raise OutOfMemoryError(
            f"the arm '{arm.settings.title}' keeps {len(kept)} further policies"
            f" ({', '.join(kept)}) of {4 * numbers / 1e9:.1f} GB each, and they do not fit into the"
            f" memory of {device}. training.parameters: lora needs far less."
        ) from None
    return found


def velocity_of(policy: Policy, average: EMA) -> Callable[..., Tensor]:
    """The velocity of a policy whose weights are the average's."""

    def velocity(*arguments: Any) -> Tensor:
        with average.swapped():
            return policy.velocity(*arguments)

    return velocity
