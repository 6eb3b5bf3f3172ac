"""A whole results folder: its scores, and the configuration that they were collected under."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from bpgo.analysis.statistics.bootstrap import Bootstrap
from bpgo.analysis.statistics.data import Collected, load_collected, read_account
from bpgo.analysis.statistics.differences import differences
from bpgo.config.digests import JUDGING, MEASURED, NO_RESULT
from bpgo.config.resolve import load_resolved
from bpgo.config.settings import Settings
from bpgo.errors import UserError, shown

PARTS = ("arms.", "rewards.", "experiments.", "sweeps.")  # what one of two folders may lack
# Where the weights of an embedded world lie, and what they are.
WORLD = re.compile(r"world_weights|model\.(path|content)|rewards\.\w+\.(weights|content)")


def load_results(folder: Path) -> tuple[Settings, Collected]:
    """Settings and collected scores of a folder such as `results` or `results/reference`.

    The settings are `folder`/config.yaml or, as the workflow writes them, those of
    `folder`/config whose digest `collected/runs.json` names.

    Raises:
        UserError: the folder, its scores or its configuration are missing.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    runs = folder / "collected" / "runs.json"
    if not runs.is_file():
        raise UserError(f"{folder}: holds no collected scores: there is no {runs}")
    digest = read_account(folder / "collected").get("config_digest")
    places = [folder / "config.yaml", folder / "config" / f"{digest}.yaml"]
    for place in places:
        if place.is_file():
            settings = load_resolved(place)
            return settings, load_collected(settings, folder / "collected")
    raise UserError(f"{folder}: its configuration is neither {places[0]} nor {places[1]}")


def all_differences(settings: Settings, data: Collected) -> pd.DataFrame:
    """`differences` of all experiments that have scores."""
    options = settings.analysis
    bootstrap = Bootstrap(options.bootstrap_samples, options.confidence, options.seed)
    found = [differences(settings, scores, bootstrap) for scores in data.scores.values()]
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame()


def check_comparable(first: Settings, second: Settings, names: tuple[str, str]) -> None:
    """Raise `UserError` naming the first key that differs, but for seeds and the world's weights.

    How results are analysed, titles, and what changes no result may differ too.
    """
    worlds = (first.world_weights, second.world_weights)
    replicate = None not in worlds and worlds[0] != worlds[1]
    for key, one, two in _differing(_plain(first), _plain(second)):
        if replicate and WORLD.fullmatch(key):
            continue
        raise UserError(
            f"{names[0]} and {names[1]} are not runs of one configuration: {key} is {one!r} there"
            f" and {two!r} here; only seeds may differ, and which weights the embedded world has"
        )


def settings_between(first: Settings, second: Settings, names: tuple[str, str]) -> list[str]:
    """The settings in which two folders differ, for a reader: `training.iterations: 100 / 200`.

    Arms, rewards and experiments that one of them lacks are left out, and so are seeds.

    Raises:
        UserError: they judge by other samplers, prompts or rewards, so their scores do not compare.
    """
    judged: list[dict[str, Any]] = [
        {
            "evaluation": each.evaluation.model_dump(mode="json", exclude=set(MEASURED))
            | {"guidance_scale": each.judging_guidance},
            "model": each.model.model_dump(mode="json", include=set(JUDGING)),
            "prompts": each.prompts.decides("evaluation"),
            "rewards": {
                name: reward.model_dump(mode="json")
                for name, reward in each.rewards.items()
                if name in first.rewards and name in second.rewards
            },
        }
        for each in (first, second)
    ]
    for key, one, two in _differing(judged[0], judged[1]):
        raise UserError(
            f"{names[0]} and {names[1]} are judged otherwise, so their scores do not compare: {key}"
            f" is {shown(one)} there and {shown(two)} here"
        )
    found = _differing(_plain(first), _plain(second))
    return [
        f"{key}: {shown(one)} / {shown(two)}"
        for key, one, two in found
        if not (None in (one, two) and key.count(".") == 1 and key.startswith(PARTS))
        and not key.endswith(".arms")
    ]


def _plain(settings: Settings) -> dict[str, Any]:
    """What two comparable runs have in common."""
    values = settings.model_dump(mode="json")
    del values["analysis"], values["machine"]
    for entry in values["experiments"].values():
        del entry["seeds"]
    return values


def _differing(one: Any, two: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    if not (isinstance(one, dict) and isinstance(two, dict)):
        if one != two:
            yield key, one, two
        return
    for name in dict.fromkeys([*one, *two]):
        if name not in NO_RESULT:
            inner = f"{key}.{name}" if key else str(name)
            yield from _differing(one.get(name), two.get(name), inner)
