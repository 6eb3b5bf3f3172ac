"""How arms are named in tables and figures."""

from __future__ import annotations

from typing import Any

import pytest
from shipped_arms import CONFIG

from bpgo.analysis.roles import arm_title
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
