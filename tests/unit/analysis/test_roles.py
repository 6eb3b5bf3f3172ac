"""How arms are named in tables and figures."""

from __future__ import annotations

from typing import Any

import pytest
from shipped_arms import CONFIG

from bpgo.analysis.roles import arm_title, reward_title
from bpgo.config import resolve as config
from bpgo.config.resolve import default_configfile


@pytest.mark.parametrize("rule", ["true_reliability", "anti"])
def test_an_arm_that_reads_the_oracle_says_so(rule: str) -> None:
    """It is for analysis only: no table may show it like an arm that a user could train."""
    values: dict[str, Any] = config.read_yaml(default_configfile())
    values["overrides"] = {"arms": {"bpgo_ras": {"trust": rule, "title": "Perfect trust"}}}
    settings = config.resolve({**values, "sweeps": {}}, CONFIG)
    assert arm_title(settings, "bpgo_ras") == "Perfect trust (reads Oracle)"
    assert arm_title(settings, "bpgo") == "BPGO"
    assert arm_title(settings, "base") == "Base"


def test_two_of_one_title_are_told_apart_where_they_stand_side_by_side() -> None:
    values: dict[str, Any] = config.read_yaml(default_configfile())
    values["overrides"] = {"arms": {"bpgo": {"title": "GRPO"}}}
    values["experiments"]["ambiguous"]["judges"].append("scenes_clear_b")
    settings = config.resolve(values, CONFIG)
    assert [arm_title(settings, arm) for arm in ("grpo", "bpgo")] == ["GRPO (grpo)", "GRPO (bpgo)"]
    pools = [reward_title(settings, f"scenes_{world}_b") for world in ("ambiguous", "clear")]
    assert pools == [f"Pool B (CNN-CLIP) (scenes_{world}_b)" for world in ("ambiguous", "clear")]
    assert reward_title(settings, "scenes_clear_c") == "Pool C (fusion transformer)"
