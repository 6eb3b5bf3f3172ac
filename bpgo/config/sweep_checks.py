"""Sweeps of a configuration's own settings: what each value makes is a configuration that holds."""

from __future__ import annotations

from typing import Any

from bpgo.config.arm_checks import check_arm
from bpgo.config.checks import check_guidance, check_sizes, check_task
from bpgo.config.digests import NO_RESULT
from bpgo.config.library import validate
from bpgo.config.settings import Settings
from bpgo.config.variants import BLOCKS, SweepSettings, set_at, value_text
from bpgo.errors import UserError

# Why a setting is none that one arm may have for itself.
_JUDGED = "all arms are judged after the same iterations, and each run's curve shows the others"
_BASE = "all arms start from one base policy, whose samples anchor them"
SHARED = {
    "training.iterations": _JUDGED,
    "training.snapshot_every": _JUDGED,
    "training.parameters": _BASE,
    "training.learning_rates": "training.learning_rate is the arm's own",
}
IDLE = ("training.checkpoint_every", "training.ratio_tolerance")
OF_ARMS = "lora"  # the one part of a model that is trained


def check_setting(name: str, sweep: SweepSettings, file: str) -> None:
    """The setting is one that an arm may have for itself.

    Raises:
        UserError: for one that all arms of a configuration share, or that changes no result.
    """
    place = f"{file}: sweeps.{name}.setting: '{sweep.setting}'"
    first = sweep.setting.partition(".")[0]
    why = SHARED.get(sweep.setting)
    if first in Settings.model_fields and first not in BLOCKS:
        why = "all arms of a configuration share it"
    if first == "model" and sweep.inside.partition(".")[0] != OF_ARMS:
        why = _BASE
    if why:
        raise UserError(
            f"{place} cannot differ between arms: {why}. Make two configurations, and compare their"
            " results: python -m bpgo paired"
        )
    if sweep.block and (sweep.setting in IDLE or sweep.word in NO_RESULT):
        raise UserError(f"{place} changes no result, so there is nothing to compare")


def check_sweeps(settings: Settings, file: str) -> None:
    """Every value of a sweep over a block's setting is allowed, and its arm can be trained with it.

    Raises:
        UserError: naming the sweep and the value, then what is wrong.
    """
    for name, sweep in settings.sweeps.items():
        if sweep.block is None:
            continue
        if sweep.block == "model" and settings.training.parameters != "lora":
            raise UserError(
                f"{file}: sweeps.{name}.setting: '{sweep.setting}' cannot act: all weights are"
                " trained (training.parameters: full)"
            )
        for value in sweep.values:
            _check_value(settings, sweep, value, f"{file}: sweeps.{name}.values")
            arm = sweep.arm_at(value)
            own = settings.of_arm(arm)
            try:
                check_sizes(own, file)
                check_task(own, file)
                check_guidance(own, file)
                check_arm(own, arm, file)
            except UserError as error:
                raise UserError(
                    f"{file}: sweeps.{name}: with {sweep.setting} = {value_text(value)}:"
                    f" {str(error).removeprefix(f'{file}: ')}"
                ) from None


def _check_value(settings: Settings, sweep: SweepSettings, value: Any, place: str) -> None:
    block = getattr(settings, str(sweep.block))
    try:
        changed = set_at(block.model_dump(), sweep.inside, value)
    except KeyError as error:
        raise UserError(
            f"{place.removesuffix('.values')}.setting: {sweep.block} has no mapping"
            f" '{error.args[0]}', so no '{sweep.setting}'"
        ) from None
    validate(type(block), changed, place, str(sweep.block))
