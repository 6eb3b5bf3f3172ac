"""What jobs use of a machine."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from bpgo.config.fields import Strict


class MachineSettings(Strict):
    """What the jobs use of a machine; it changes no result beyond the rounding of sums."""

    # For each training run, one process each; 0: on the processor.
    gpus: Annotated[int, Field(ge=0)] = 0
    shard_weights: bool = True  # full weights on several GPUs: FSDP2; false: all weights on each
