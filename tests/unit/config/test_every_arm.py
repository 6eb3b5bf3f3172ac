"""`arms: {all_but: [...]}`: a new file of the folder `arms` is trained by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from shipped_arms import NAMES
from shipped_config import refusal

from bpgo.config import resolve as config

FILES = ["smoke_arms.yaml", "smoke_arms_t2v.yaml"]


@pytest.mark.parametrize("file", FILES)
def test_every_file_of_the_folder_is_trained(file: str, folder: Path) -> None:
    assert {run.arm for run in config.load(folder / file).runs()} == set(NAMES)
    path = folder / "arms" / "mine.yaml"
    path.write_text(yaml.safe_dump({"base": "awm", "title": "Mine"}))
    found = [run.arm for run in config.load(folder / file).runs()]
    assert set(found) == {*NAMES, "mine"}
    assert found.count("mine") == 1


def with_arms(values: dict[str, Any], arms: Any) -> dict[str, Any]:
    entry = values["experiments"]["arms"] | {"arms": arms}
    return {**values, "experiments": {"arms": entry}}


def shipped(folder: Path) -> dict[str, Any]:
    values = config.read_yaml(folder / FILES[0])
    return {key: value for key, value in values.items() if key not in config.WORKFLOW_OPTIONS}


def test_some_are_left_out(folder: Path) -> None:
    values = with_arms(shipped(folder), {"all_but": ["crd", "gdpo"]})
    left = config.resolve(values, folder).experiments["arms"].arms
    assert left == [name for name in NAMES if name not in ("crd", "gdpo")]


@pytest.mark.parametrize(
    ("arms", "words"),
    [
        ({"all_but": ["crdd"]}, "experiments.arms.arms.all_but: 'crdd' is no arm of the folder"),
        ({"all_but": ["crdd"]}, "Did you mean 'crd'"),
        ({"all_but": ["crd", "crd"]}, "experiments.arms.arms.all_but: 'crd' is listed twice"),
        ({"all": []}, "experiments.arms.arms: must be a list of arms, or all_but with a list"),
        ({"all_but": "crd"}, "experiments.arms.arms: must be a list of arms, or all_but with"),
    ],
)
def test_what_is_no_list_is_refused(arms: Any, words: str, folder: Path) -> None:
    assert words in refusal(with_arms(shipped(folder), arms), folder)
