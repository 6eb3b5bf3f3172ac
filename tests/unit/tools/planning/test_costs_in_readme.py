"""The hours in README's table of published models are the plan's, and each has a day's part."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bpgo.config import resolve as config
from bpgo.storage.files import repository_root
from bpgo.tools.planning.run import make_plan

CONFIG = config.default_configfile().parent
ROW = re.compile(
    r"^\| \[(\w+)\]\(config/\1\.yaml\) \|.*"
    r"\| ([\d,]+) \| \[(\d+)\]\((config/overlays/\w+\.yaml)\) \|$",
    re.MULTILINE,
)
ROWS = {name: rest for name, *rest in ROW.findall((repository_root() / "README.md").read_text())}
PUBLISHED = ("flux_t2i", "sd35_t2i", "wan21_t2v", "wan22_i2v")
GPU = "H100"  # the table's


def test_every_published_model_has_a_row() -> None:
    assert tuple(ROWS) == PUBLISHED


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_hours_are_the_plans(name: str) -> None:
    everything, day, overlay = ROWS[name]
    base, part = CONFIG / f"{name}.yaml", repository_root() / overlay
    assert Path(overlay).stem == f"{name}_day"
    plan = make_plan(base, gpu=GPU, devices=1)
    assert f"{plan.time.device_hours:,.0f}" == everything
    small = make_plan([base, part], gpu=GPU, devices=1)
    assert f"{small.time.device_hours:.0f}" == day
    assert small.time.wall < 24 * 3600
    assert small.fitting_batch >= 1  # it fits the memory
    runs = small.settings.runs()
    assert [run.arm for run in runs] == ["grpo", "bpgo"]
    assert len({run.seed for run in runs}) == 1
    assert config.load([base, part], "smoke").runs()


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_day_has_a_folder_of_its_own(name: str) -> None:
    values = config.read_yaml(CONFIG / "overlays" / f"{name}_day.yaml")
    assert values["root"] == f"results/{name}_day"
