"""Equal tuning: for every arm of an experiment equally many candidates, drawn from its ranges.

A candidate is an arm of the same configuration with other values, so everything that trains,
samples and scores arms does so with candidates too.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from bpgo.config.arm_files import arm_settings, with_value
from bpgo.config.library import mapping, optional, validate
from bpgo.config.settings import ExperimentSettings, Settings
from bpgo.config.variants import LEARNING_RATE, TuneSettings
from bpgo.config.yaml_files import read_yaml
from bpgo.errors import UserError, shown, suggest
from bpgo.seeding import numpy_generator

TUNE = "tune.yaml"  # its name beside configurations


def checked(
    values: Any,
    experiments: dict[str, ExperimentSettings],
    arms: dict[str, BaseModel],
    folder: Path,
    file: str,
) -> TuneSettings | None:
    """The search that a configuration of the folder `folder` asks for; None without one.

    Raises:
        UserError: for an unknown key or experiment; an arm without ranges or without one of the
            learning rate; a bound that the arm's settings do not allow; a seed that is reported.
    """
    if values is None:
        return None
    tune = validate(TuneSettings, values, file, "tune")
    if tune.experiment not in experiments:
        raise UserError(
            f"{file}: tune.experiment: '{tune.experiment}' is not an experiment."
            f"{suggest(tune.experiment, experiments)} Known: {', '.join(experiments)}"
        )
    _check_arms(tune, experiments[tune.experiment], folder, file)
    for arm in experiments[tune.experiment].arms:
        for setting, drawn in tune.ranges[arm].items():
            for value in drawn.ends():
                _check_value(arms[arm], arm, setting, value, file)
    _check_seeds(tune, experiments[tune.experiment].seeds, folder, file)
    return tune


def add_candidates(
    tune: TuneSettings,
    experiments: dict[str, ExperimentSettings],
    arms: dict[str, BaseModel],
    values: dict[str, Any],
    file: str,
) -> dict[str, Any]:
    """Put every candidate into `arms`; returns `training` with their learning rates."""
    training = mapping(values.get("training"), "training", file)
    rates = dict(optional(training.get("learning_rates"), "training.learning_rates", file))
    for arm in experiments[tune.experiment].arms:
        for number, name in enumerate(tune.names(arm)[1:], start=1):
            if name in arms:
                raise UserError(f"{file}: tune: arm '{name}' is there already; rename that one")
            changed, place = arms[arm].model_dump(mode="json"), f"tune.ranges.{arm}"
            for setting, value in drawn_values(tune, arm, number).items():
                if setting == LEARNING_RATE:
                    rates[name] = value
                else:
                    where = f"{file}: {place}: arm '{arm}'"
                    changed = with_value(changed, setting, value, where)
            changed["title"] = f"{changed['title']}, try {number}"
            arms[name] = arm_settings(changed, file, place)
    return {**training, "learning_rates": rates}


def drawn_values(tune: TuneSettings, arm: str, number: int) -> dict[str, Any]:
    """Candidate `number` (from 1 on) of an arm: a value by setting.

    Each is drawn by its own name: another arm, setting or candidate changes no other one.
    """
    found = {}
    for setting, drawn in tune.ranges[arm].items():
        share = numpy_generator("tune", tune.seed, arm, number, setting).random()
        found[setting] = drawn.at(float(share))
    return found


def values_of(settings: Settings, arm: str, name: str) -> dict[str, Any]:
    """What a candidate (or the arm itself) has of the settings that an arm's ranges name."""
    tune, values = searched(settings), settings.arms[name].model_dump(mode="json")
    found = {}
    for setting in tune.ranges[arm]:
        rate = settings.training.of(name).learning_rate
        found[setting] = rate if setting == LEARNING_RATE else _at(values, setting)
    return found


def searched(settings: Settings) -> TuneSettings:
    """The search of a configuration, which must have one."""
    if settings.tune is None:
        raise UserError(f"'{settings.title}' has no search: its configuration has no key 'tune'")
    return settings.tune


def overlay(settings: Settings, chosen: dict[str, str]) -> dict[str, Any]:
    """What makes of a configuration one with the chosen candidates: `chosen` is a name by arm.

    An arm may be built on another one of the search, and would inherit what was chosen for that.
    So each arm states every setting that any range names, where it has it.
    """
    tune = searched(settings)
    every = list(dict.fromkeys(setting for arm in chosen for setting in tune.ranges[arm]))
    rates: dict[str, float] = {}
    changes: dict[str, dict[str, Any]] = {}
    for arm, name in chosen.items():
        values = settings.arms[name].model_dump(mode="json")
        change: dict[str, Any] = {}
        rates[arm] = settings.training.of(name).learning_rate
        for setting in every:
            if setting != LEARNING_RATE and _has(values, setting):
                _put(change, setting, _at(values, setting))
        if change:
            changes[arm] = change
    made = {"training": {"learning_rates": rates}}
    return {**made, "overrides": {"arms": changes}} if changes else made


def _check_arms(tune: TuneSettings, entry: ExperimentSettings, folder: Path, file: str) -> None:
    files = sorted(path.stem for path in (folder / "arms").glob("*.yaml"))
    for arm in tune.ranges:
        if arm not in files:
            raise UserError(
                f"{file}: tune.ranges: '{arm}' is no arm of the folder arms.{suggest(arm, files)}"
            )
    for arm in entry.arms:
        if arm not in tune.ranges:
            raise UserError(
                f"{file}: tune.ranges: '{arm}' of experiments.{tune.experiment}.arms has no ranges;"
                " an arm that is compared is tuned as the others are"
            )
        if LEARNING_RATE not in tune.ranges[arm]:
            raise UserError(
                f"{file}: tune.ranges.{arm}: has no {LEARNING_RATE}, which is tuned for every arm"
            )


def _check_value(known: BaseModel, arm: str, setting: str, value: Any, file: str) -> None:
    """One end of a range is a value that the arm may have."""
    place, changed = f"tune.ranges.{arm}", known.model_dump(mode="json")
    if setting == LEARNING_RATE:
        if not isinstance(value, (int, float)) or value <= 0:
            raise UserError(
                f"{file}: {place}.{setting}: {shown(value)} is not allowed: must be above 0"
            )
        return
    changed = with_value(changed, setting, value, f"{file}: {place}: arm '{arm}'")
    arm_settings(changed, file, place)


def _check_seeds(tune: TuneSettings, seeds: list[int], folder: Path, file: str) -> None:
    for name in tune.reported_by:
        path = folder / name
        if not path.is_file():
            raise UserError(f"{file}: tune.reported_by: there is no {path}")
        reported = set(_seeds_of(read_yaml(path)))
        for seed in seeds:
            if seed in reported:
                raise UserError(
                    f"{file}: experiments.{tune.experiment}.seeds: {seed} is a seed of {path};"
                    " settings that were chosen by it would be judged by it too. Take others than"
                    f" {', '.join(map(str, sorted(reported)))}"
                )


def _seeds_of(values: dict[str, Any]) -> Iterator[int]:
    """The seeds that a configuration or the search `instrument.yaml` trains with."""
    entries = values.get("experiments")
    for entry in (values, *(entries.values() if isinstance(entries, dict) else ())):
        seeds = entry.get("seeds") if isinstance(entry, dict) else None
        yield from seeds if isinstance(seeds, list) else []


def _has(values: dict[str, Any], dotted: str) -> bool:
    *path, last = dotted.split(".")
    for part in path:
        values = values.get(part) or {}
        if not isinstance(values, dict):
            return False
    return last in values


def _at(values: dict[str, Any], dotted: str) -> Any:
    """What stands where the dotted key leads; None where there is nothing."""
    place: Any = values
    for part in dotted.split("."):
        place = place.get(part) if isinstance(place, dict) else None
    return place


def _put(values: dict[str, Any], dotted: str, value: Any) -> None:
    *path, last = dotted.split(".")
    for part in path:
        values = values.setdefault(part, {})
    values[last] = value
