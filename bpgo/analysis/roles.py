"""What an arm or a reward stands for in the analysis: names, titles, roles."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from bpgo.config.settings import BASE_ARM, Settings
from bpgo.config.variants import BLOCKS, value_text

# Arms that the paper's claims are about, by the names of their files in config/arms.
BPGO, RAS, CRT, SHUFFLED = "bpgo", "bpgo_ras", "bpgo_crt", "bpgo_ras_shuffled"

TRAINING, HELD_OUT, ORACLE = "training", "held-out", "oracle"


def reward_role(settings: Settings, experiment: str, reward: str) -> str:
    """`training` (drives the runs), `oracle` (the truth of the embedded world) or `held-out`."""
    if reward == settings.experiments[experiment].training_reward:
        return TRAINING
    known = settings.rewards.get(reward)
    kind = known.kind if known else reward
    return ORACLE if "oracle" in kind or reward.startswith("oracle") else HELD_OUT


def oracle_of(settings: Settings, experiment: str) -> str | None:
    """The first oracle among an experiment's diagnostics and judges, or None."""
    entry = settings.experiments[experiment]
    for name in [*entry.diagnostics, *entry.judges]:
        if reward_role(settings, experiment, name) == ORACLE:
            return name
    return None


def truth_title(settings: Settings, experiment: str) -> str:
    """What a reward's reliability is measured against: the oracle or, without one, the others."""
    return "oracle" if oracle_of(settings, experiment) else "other rewards (mean)"


def main_metric(settings: Settings, experiment: str) -> str:
    """The metric declared before looking; where it does not score, the oracle or first judge."""
    names = settings.rewards_of(experiment)
    declared = settings.analysis.main_metric
    if declared in names:
        return declared
    oracle = oracle_of(settings, experiment)
    return oracle if oracle in names else settings.experiments[experiment].judges[0]


def arms_of(settings: Settings, experiment: str) -> list[str]:
    """Every arm of an experiment in the order of the configuration, the base policy first.

    Policies that were trained elsewhere come last.
    """
    return [BASE_ARM, *settings.arms_of(experiment), *settings.policies]


def arm_title(settings: Settings, arm: str) -> str:
    """The arm's title in tables and figures.

    An arm whose trust rule reads a reward that no arm may see says so wherever it is named.
    """
    if arm == BASE_ARM:
        return "Base"
    experiments = settings.experiments.values()
    if arm in settings.policies:
        return f"{_told_apart(arm, settings.policies, [list(settings.policies)])} (given)"
    chosen = settings.arms.get(arm)
    title = _told_apart(arm, settings.arms, [each.arms for each in experiments])
    trust = getattr(chosen, "trust", None)
    read = [reward_title(settings, name) for name in trust.reference_rewards()] if trust else []
    return f"{title} (reads {', '.join(read)})" if read else title


def reward_title(settings: Settings, reward: str) -> str:
    """The reward's title in tables and figures."""
    return _told_apart(reward, settings.rewards, map(settings.rewards_of, settings.experiments))


def _told_apart(name: str, entries: Mapping[str, Any], together: Iterable[Collection[str]]) -> str:
    """An entry's title; with its name where another one that stands beside it has the same."""
    title = str(getattr(entries.get(name), "title", name))
    beside = {other for names in together if name in names for other in names} - {name}
    same = any(getattr(entries.get(other), "title", other) == title for other in beside)
    return f"{title} ({name})" if same else title


def is_alpha(setting: str) -> bool:
    """Whether a sweep's setting is RAS's scaling magnitude (paper Table 4)."""
    *path, last = setting.split(".")
    return last == "alpha" and path[:1] in ([], ["trust"])


def own_sized(settings: Settings, experiment: str) -> list[str]:
    """The arms that a sweep gives other settings of the configuration, such as a group size."""
    return [
        sweep.arm_at(value)
        for sweep in settings.sweeps.values()
        if sweep.experiment == experiment and sweep.block is not None
        for value in sweep.values
    ]


def own_setting(settings: Settings, arm: str, setting: str) -> Any:
    """An arm's own value of a setting: of its file, or of the configuration as it trains the arm.

    None if it has no such setting.
    """
    first, _, inside = setting.partition(".")
    place: Any = settings.arms.get(arm)
    if first in BLOCKS:
        place, setting = getattr(settings.of_arm(arm), first), inside
    for part in setting.split("."):
        place = getattr(place, part, None)
    return place


def own_value(settings: Settings, arm: str, setting: str) -> float | None:
    """An arm's own value of a setting such as `trust.alpha`; None if it is no number."""
    found = own_setting(settings, arm, setting)
    is_number = isinstance(found, (int, float)) and not isinstance(found, bool)
    return float(found) if is_number else None


def sweep_values(
    settings: Settings, experiment: str, arm: str, setting: str
) -> list[tuple[float, str]]:
    """(value, arm) of a sweep over numbers, rising; with the arm's own and GRPO at alpha 0."""
    found = swept_arms(settings, experiment, arm, setting)
    if not all(isinstance(value, float) for value in found):
        return []
    return sorted((float(value), name) for value, name in found.items())


def swept_arms(
    settings: Settings, experiment: str, arm: str, setting: str
) -> dict[float | str, str]:
    """The arm of each value of a sweep, words as tables show them; numbers rise.

    With the arm's own value and, for alpha, GRPO at 0.
    """
    found: dict[float | str, str] = {}
    for sweep in settings.sweeps.values():
        if (sweep.experiment, sweep.arm, sweep.setting) == (experiment, arm, setting):
            found |= {_value(value): sweep.arm_at(value) for value in sweep.values}
    listed = settings.experiments[experiment].arms
    own = own_setting(settings, arm, setting)
    if arm in listed and isinstance(own, (int, float, str)):
        found[_value(own)] = arm
    if is_alpha(setting) and arm == RAS and settings.analysis.reference_arm in listed:
        found.setdefault(0.0, settings.analysis.reference_arm)
    order: list[float | str] = sorted(value for value in found if isinstance(value, float))
    order += [value for value in found if isinstance(value, str)]
    return {value: found[value] for value in order}


def _value(value: Any) -> float | str:
    return value_text(value) if isinstance(value, (bool, str)) else float(value)
