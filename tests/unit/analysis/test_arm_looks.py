"""Arms in figures: each is told from every other."""

from __future__ import annotations

import pytest

from bpgo.analysis.figures import style
from bpgo.config.settings import BASE_ARM
from bpgo.storage.files import repository_root

ARMS = sorted(path.stem for path in (repository_root() / "config" / "arms").glob("*.yaml"))


def test_every_shipped_arm_has_a_look_of_its_own():
    looks = {arm: style.arm_look(arm) for arm in [BASE_ARM, *ARMS]}
    assert "--" not in {line for _, _, line in looks.values()}  # that of an arm without one
    assert len({look[:2] for look in looks.values()}) == len(looks)


@pytest.mark.parametrize("arm", ["mine", "bpgo_ras_alpha_0p1", "bpgo_ras_alpha_0p9"])
def test_another_arm_looks_alike_in_every_figure(arm):
    colour, marker, line = style.arm_look(arm)
    assert (colour, marker, line) == style.arm_look(arm)
    assert (colour, marker) not in {style.arm_look(known)[:2] for known in [BASE_ARM, *ARMS]}
