"""Noise levels that a kernel cannot have."""

from __future__ import annotations

import pytest
from shipped_arms import values_of

from bpgo import registry
from bpgo.core.policy_gradient import SHARING


@pytest.mark.parametrize("name", ["ddpo", "flow_cps", "flow_grpo_fast"])
def test_no_more_noise_is_drawn_than_a_step_has(name: str) -> None:
    """Beyond 1 the mean of `ddim` is of the root of a negative number, and that of `cps` turns."""
    values = values_of(name)
    kind = registry.load_arm_class(values["algorithm"]).Settings
    assert values["kernel"] in SHARING
    kind.model_validate(values | {"noise_level": 1.0})
    message = f"noise_level 1.01 is above 1, at which the kernel '{values['kernel']}'"
    with pytest.raises(ValueError, match=message):
        kind.model_validate(values | {"noise_level": 1.01})
