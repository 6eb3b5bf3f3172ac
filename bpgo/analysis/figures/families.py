"""Which arms share a row of panels: all of an experiment, or a family at a time."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes

from bpgo.analysis.figures import style
from bpgo.config.settings import Settings

FEW = 10  # arms of an experiment that one panel can show
OTHERS = "others"
FAMILIES = {
    "GRPO and BPGO": (
        *("grpo", "bpgo", "bpgo_ras", "bpgo_crt", "bpgo_released", "bpgo_standardized"),
        "bpgo_ras_shuffled",
    ),
    "kernels and clipping": (*("dance_grpo", "flow_grpo", "flow_cps", "grpo_guard", "flow_dppo"),),
    "windows, trees, single steps": (
        *("flow_grpo_fast", "mix_grpo", "tempflow_grpo", "flash_grpo", "branch_grpo"),
    ),
    "rewards and advantages": ("dr_grpo", "ddpo", "gdpo", "pref_grpo", "vipo"),
    "forward processes": ("diffusion_nft", "awm", "dgpo", "crd"),
    "anchors": ("oracle_reward", "random_reward", "oracle_trust", "anti_trust"),
}
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#8C6D1F", "#56B4E9", "#882255", "#332288")


@dataclass(frozen=True)
class Shown:
    """A row of panels: an experiment, its arms in colour, and those that stay in the background."""

    experiment: str
    family: str  # empty: all arms
    arms: list[str]
    behind: list[str]
    reference: str

    @property
    def title(self) -> str:
        """Of the row."""
        return f"{self.experiment}: {self.family}" if self.family else self.experiment

    def look(self, arm: str) -> tuple[str, str, str]:
        """Colour, marker and line of an arm here; within a family no two share a colour."""
        colour, marker, line = style.arm_look(arm)
        own = [each for each in self.arms if each != self.reference]
        usual = {style.arm_look(each)[0] for each in self.arms}
        if not self.family or arm == self.reference or len(usual) == len(self.arms):
            return colour, marker, line
        return COLOURS[own.index(arm) % len(COLOURS)], marker, line


def rows_of(settings: Settings, experiments: list[str]) -> list[Shown]:
    """The rows of a figure of curves: `analysis.families` says whether families are apart.

    A family's row has the reference arm too, and the other families' arms behind.
    """
    return [row for name in experiments for row in _rows(settings, name)]


def _rows(settings: Settings, experiment: str) -> list[Shown]:
    wanted, reference = settings.analysis.families, settings.analysis.reference_arm
    arms, found = list(settings.experiments[experiment].arms), []
    if wanted == "apart" or (wanted == "auto" and len(arms) > FEW):
        for family in [*FAMILIES, OTHERS]:
            own = [arm for arm in arms if arm != reference and family_of(arm) == family]
            if own:
                shown = [arm for arm in arms if arm == reference or arm in own]
                rest = [arm for arm in arms if arm not in shown]
                found.append(Shown(experiment, family, shown, rest, reference))
    return found or [Shown(experiment, "", arms, [], reference)]


def behind(axes: Axes, x: pd.Series[float], y: pd.Series[float]) -> None:
    """The curve of an arm of another family."""
    axes.plot(x, y, color="#D4D4D4", lw=0.7, zorder=1)


def family_of(arm: str) -> str:
    """The family of an arm that the suite knows."""
    return next((name for name, arms in FAMILIES.items() if arm in arms), OTHERS)
