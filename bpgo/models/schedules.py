"""The noise levels of a sampler: those of the pipeline's own scheduler, or one of four grids.

| `schedule` | Sigmas | Shift |
| --- | --- | --- |
| `pipeline` | the scheduler's, as the installed diffusers has it | `flow_shift`, or its own |
| `static` | even from 1 to 0 (DanceGRPO's `sd3_time_shift`) | `flow_shift` |
| `flux` | even from 1, as FLUX.1's pipeline | by the number of tokens |
| `sd3` | diffusers' Euler scheduler where the pipeline hands it none | `flow_shift` |
| `unipc_0_36` | UniPC's from .999, as diffusers 0.36 had it for Wan | `flow_shift` |

Where `flow_shift` is not given, it is that of the scheduler's configuration.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from bpgo.config.fields import Schedule
from bpgo.config.model import ModelSettings
from bpgo.core import sde
from bpgo.errors import UserError


@dataclass(frozen=True)
class NoiseLevels:
    """A model's noise levels, for training or for judging.

    `scheduler` is the pipeline's, with `shift` for its own where the schedule is `pipeline`.
    """

    schedule: Schedule
    shift: float | None
    scheduler: Any

    def sigmas(self, steps: int, tokens: int, even: list[float] | None) -> Tensor:
        """`[T+1]` float32, from 1 (or near) down to 0.

        Args:
            steps: T.
            tokens: of one image; dynamic shifts depend on it.
            even: the noise levels that the pipeline hands its scheduler; None: it hands none.
        """
        if self.schedule == "pipeline":
            return _of_scheduler(self.scheduler, steps, tokens, even)
        if self.schedule == "flux":
            return sde.flux_sigmas(steps, sde.flux_mu(tokens))
        assert self.shift is not None
        if self.schedule == "static":
            return sde.flow_sigmas(steps, self.shift)
        grid = sde.sd3_sigmas if self.schedule == "sd3" else sde.unipc_sigmas
        return grid(steps, self.shift, self.scheduler.config.num_train_timesteps)


def noise_levels(
    settings: ModelSettings,
    scheduler: Any,
    known: tuple[Schedule, ...],
    what: str,
    evaluation: bool,
) -> NoiseLevels:
    """Those of training, or with `evaluation` of judging.

    Judging is as training where none of its two keys is given. `evaluation_flow_shift` alone
    changes the shift; `evaluation_schedule` alone comes with the pipeline's own shift.

    Args:
        settings: the model's.
        scheduler: the pipeline's.
        known: the schedules that fit the kind of model.
        what: how messages name the model.
        evaluation: whether they are for judging.

    Raises:
        UserError: for a schedule that does not fit, or a shift that is missing or cannot act.
    """
    schedule, shift, prefix = settings.schedule, settings.flow_shift, ""
    own_schedule, own_shift = settings.evaluation_schedule, settings.evaluation_flow_shift
    if evaluation and (own_schedule is not None or own_shift is not None):
        schedule, shift, prefix = own_schedule or schedule, own_shift, "evaluation_"
    if schedule not in known:
        raise UserError(
            f"{what}: {prefix}schedule: {schedule}: a model of kind '{settings.kind}' has"
            f" {', '.join(known[:-1])} or {known[-1]}"
        )
    dynamic = bool(scheduler.config.get("use_dynamic_shifting"))
    follows = schedule == "flux" or (schedule == "pipeline" and dynamic)
    if follows and shift is not None:
        raise UserError(
            f"{what}: {prefix}flow_shift: {shift:g}: with {prefix}schedule {schedule} the shift"
            " follows from the resolution: leave it out, or set the schedule to static"
        )
    if follows:
        return NoiseLevels(schedule, None, scheduler)
    key = "flow_shift" if "flow_shift" in scheduler.config else "shift"
    if shift is None and dynamic:
        raise UserError(
            f"{what}: {prefix}flow_shift: schedule {schedule} needs a number above 0: the"
            " pipeline's own shift follows from the resolution"
        )
    if shift is None:
        shift = float(scheduler.config[key])
    elif schedule == "pipeline":
        scheduler = type(scheduler).from_config(scheduler.config, **{key: shift})
    return NoiseLevels(schedule, shift, scheduler)


def _of_scheduler(scheduler: Any, steps: int, tokens: int, even: list[float] | None) -> Tensor:
    """The pipeline's sigmas, shifted as its scheduler's configuration says."""
    config, options = scheduler.config, {"device": "cpu"}
    if config.use_dynamic_shifting:  # diffusers `calculate_shift`
        slope = (config.max_shift - config.base_shift) / (
            config.max_image_seq_len - config.base_image_seq_len
        )
        shift = config.base_shift - slope * config.base_image_seq_len
        options["mu"] = tokens * slope + shift
    if even is None:
        scheduler.set_timesteps(steps, **options)
    else:
        scheduler.set_timesteps(sigmas=even, **options)
    sigmas: Tensor = scheduler.sigmas
    return sigmas.float()
