"""The paper's claims as tests on our statistics.

Each claim is a list of tests; a test is one estimate with its interval and the side on which the
claim expects it. A test is *supported* if the whole interval lies on that side, *contradicted* if
it lies on the other, *not resolved* otherwise. A claim is supported if all its tests are,
contradicted if any is; among tests of one `any` group the best one counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bpgo.analysis import roles
from bpgo.analysis.roles import HELD_OUT, ORACLE, TRAINING, arm_title, reward_title
from bpgo.config.settings import BASE_ARM, Settings

SUPPORTED, CONTRADICTED, UNRESOLVED = "supported", "contradicted", "not resolved"
COST_MARGIN = 1.05  # "next to nothing": at most 5 % more time per iteration (our choice)

STATEMENTS = {
    "premise": "The premise: within a group the training reward tells less about the truth the"
    " more ambiguous the prompt, and a low group mean gives that away.",
    "held_out": "Claim 1a: on rewards that did not train it, BPGO beats GRPO.",
    "overoptimization": "Claim 1b: GRPO raises its training reward while another score falls below"
    " the base policy's.",
    "convergence": "Claim 2: BPGO converges sooner and oscillates less than GRPO.",
    "parts": "Claim 3: RAS and CRT each help, and together they are best.",
    "alpha": "Claim 4: the scaling magnitude has an interior optimum near the recommended value.",
    "cost": "Claim 5: BPGO costs next to nothing over GRPO.",
    "truth": "Beyond the paper: BPGO beats GRPO on the truth itself (the oracle).",
    "trust": "Beyond the paper: RAS trusts groups in which the reward really is more reliable.",
    "control": "Beyond the paper: RAS helps because of which groups it trusts (against the same"
    " weights shuffled among the groups).",
}


@dataclass(frozen=True)
class Check:
    """One estimate and the side of `null` on which the claim expects it."""

    claim: str
    quantity: str
    estimate: float
    low: float
    high: float
    n_seeds: int
    above: bool = True
    null: float = 0.0
    unit: str = ""
    any_group: str = ""
    n_groups: int = 0  # where groups of the base policy are the units

    def verdict(self) -> str:
        """See the module's description; without an interval nothing is resolved."""
        if not (np.isfinite(self.low) and np.isfinite(self.high)):
            return UNRESOLVED
        over, under = self.low > self.null, self.high < self.null
        right, wrong = (over, under) if self.above else (under, over)
        return SUPPORTED if right else CONTRADICTED if wrong else UNRESOLVED


def overall(tests: list[Check]) -> str:
    """The claim's verdict from those of its tests."""
    verdicts = [test.verdict() for test in tests if not test.any_group]
    for group in dict.fromkeys(test.any_group for test in tests if test.any_group):
        inside = [test.verdict() for test in tests if test.any_group == group]
        order = (SUPPORTED, UNRESOLVED, CONTRADICTED)
        verdicts.append(min(inside, key=order.index))
    if CONTRADICTED in verdicts:
        return CONTRADICTED
    return SUPPORTED if verdicts and set(verdicts) == {SUPPORTED} else UNRESOLVED


def judge_claims(settings: Settings, frames: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """One row a test: experiment, claim, statement, quantity, estimate, low, high, verdicts.

    `verdict` is the test's, `claim_verdict` the claim's in that experiment. A claim whose arms or
    data are absent from an experiment has no rows there.
    """
    rows = []
    for experiment in settings.experiments:
        found: dict[str, list[Check]] = {}
        for test in _tests(settings, experiment, frames):
            found.setdefault(test.claim, []).append(test)
        for claim in STATEMENTS:
            tests = found.get(claim, [])
            rows += [
                {
                    "experiment": experiment,
                    "claim": claim,
                    "statement": STATEMENTS[claim],
                    "quantity": test.quantity,
                    "expected": f"{'>' if test.above else '<'} {test.null:g}",
                    "estimate": test.estimate,
                    "low": test.low,
                    "high": test.high,
                    "unit": test.unit,
                    "n_seeds": test.n_seeds,
                    "n_groups": test.n_groups,
                    "any_of": bool(test.any_group),
                    "verdict": test.verdict(),
                    "claim_verdict": overall(tests),
                }
                for test in tests
            ]
    return pd.DataFrame(rows, columns=CLAIM_COLUMNS)


CLAIM_COLUMNS = [
    *("experiment", "claim", "statement", "quantity", "expected", "estimate", "low", "high"),
    *("unit", "n_seeds", "n_groups", "any_of", "verdict", "claim_verdict"),
]


def _tests(settings: Settings, experiment: str, frames: dict[str, pd.DataFrame]) -> Iterator[Check]:
    yield from _premise(settings, experiment, frames)
    yield from _held_out(settings, experiment, frames["differences"])
    yield from _convergence(settings, experiment, frames["convergence_summary"])
    yield from _parts(settings, experiment, frames["differences"])
    yield from _alpha(settings, experiment, frames["differences"])
    yield from _trust(settings, experiment, frames["trust_summary"])


def _difference(
    settings: Settings,
    frame: pd.DataFrame,
    key: tuple[str, str, str, str],
    claim: str,
    above: bool = True,
    any_group: str = "",
) -> Iterator[Check]:
    """The paired difference (experiment, arm, reference, reward) in base sd, if it was measured."""
    experiment, arm, reference, reward = key
    for row in _rows(frame, experiment=experiment, arm=arm, reference=reference, reward=reward):
        names = f"{arm_title(settings, arm)} − {arm_title(settings, reference)}"
        quantity = f"{names}, {reward_title(settings, reward)}"
        bounds = (row.difference_sd, row.low_sd, row.high_sd, row.n_seeds)
        yield Check(claim, quantity, *bounds, above, unit="base sd", any_group=any_group)


def _premise(
    settings: Settings, experiment: str, frames: dict[str, pd.DataFrame]
) -> Iterator[Check]:
    reward = settings.experiments[experiment].training_reward
    wanted = {"ambiguity": ("prompt ambiguity", False), "group_mean": ("group's mean reward", True)}
    for by, (words, above) in wanted.items():
        frame = frames["premise_summary"]
        for row in _rows(frame, experiment=experiment, reward=reward, by=by):
            quantity = f"Rank correlation of reliability with {words}"
            bounds = (row.mean, row.low, row.high)
            yield Check("premise", quantity, *bounds, 0, above, n_groups=row.n_groups)


def _held_out(settings: Settings, experiment: str, frame: pd.DataFrame) -> Iterator[Check]:
    grpo = settings.analysis.reference_arm
    for reward in settings.rewards_of(experiment):
        role = roles.reward_role(settings, experiment, reward)
        if role in (HELD_OUT, ORACLE):
            pair = (experiment, roles.BPGO, grpo, reward)
            claim = "held_out" if role == HELD_OUT else "truth"
            yield from _difference(settings, frame, pair, claim)
    for reward in settings.rewards_of(experiment):
        rises = roles.reward_role(settings, experiment, reward) == TRAINING
        pair = (experiment, grpo, BASE_ARM, reward)
        group = "" if rises else "falls"
        yield from _difference(settings, frame, pair, "overoptimization", rises, group)


def _convergence(settings: Settings, experiment: str, frame: pd.DataFrame) -> Iterator[Check]:
    """Claims 2 and 5; an oscillation or a time is better when smaller."""
    expected = {
        "area": ("mean gain over training", True, "base sd"),
        "steps_to_threshold": ("iterations to threshold", False, "iterations"),
        "oscillation": ("oscillation", False, "base sd"),
    }
    grpo = arm_title(settings, settings.analysis.reference_arm)
    names = f"{arm_title(settings, roles.BPGO)} − {grpo}"
    for measure, (words, above, unit) in expected.items():
        for row in _rows(frame, experiment=experiment, arm=roles.BPGO, measure=measure):
            bounds = (row.difference, row.difference_low, row.difference_high, row.n_seeds)
            yield Check("convergence", f"{names}, {words}", *bounds, above, unit=unit)
    for row in _rows(frame, experiment=experiment, arm=roles.BPGO, measure="seconds"):
        quantity = f"Time per iteration, {arm_title(settings, roles.BPGO)} / {grpo}"
        bounds = (row.difference, row.difference_low, row.difference_high, row.n_seeds)
        yield Check("cost", quantity, *bounds, False, COST_MARGIN, unit="ratio")


def _parts(settings: Settings, experiment: str, frame: pd.DataFrame) -> Iterator[Check]:
    metric = roles.main_metric(settings, experiment)
    grpo = settings.analysis.reference_arm
    pairs = [(roles.RAS, grpo), (roles.CRT, grpo), (roles.BPGO, roles.RAS), (roles.BPGO, roles.CRT)]
    for arm, reference in pairs:
        yield from _difference(settings, frame, (experiment, arm, reference, metric), "parts")
    control = (experiment, roles.RAS, roles.SHUFFLED, metric)
    yield from _difference(settings, frame, control, "control")


def _alpha(settings: Settings, experiment: str, frame: pd.DataFrame) -> Iterator[Check]:
    """The recommended value, fixed beforehand, against both ends of the sweep."""
    metric = roles.main_metric(settings, experiment)
    for sweep in settings.sweeps.values():
        own = roles.own_value(settings, sweep.arm, sweep.setting)
        if sweep.experiment != experiment or not roles.is_alpha(sweep.setting) or own is None:
            continue
        lower = [value for value in sweep.values if value < own]
        higher = [value for value in sweep.values if value > own]
        if not lower or not higher:
            continue
        for end in (min(lower), max(higher)):
            pair = (experiment, sweep.arm, sweep.arm_at(end), metric)
            yield from _difference(settings, frame, pair, "alpha")


def _trust(settings: Settings, experiment: str, frame: pd.DataFrame) -> Iterator[Check]:
    for arm in (roles.RAS, roles.BPGO):
        for row in _rows(frame, experiment=experiment, arm=arm):
            quantity = f"Rank correlation of weight and reliability, {arm_title(settings, arm)}"
            yield Check("trust", quantity, row.mean, row.low, row.high, row.n_seeds)


def _rows(frame: pd.DataFrame, **wanted: str) -> Iterator[Any]:
    """Rows of a frame with the given values, as named tuples."""
    if frame.empty:
        return
    keep = np.ones(len(frame), dtype=bool)
    for column, value in wanted.items():
        keep &= (frame[column] == value).to_numpy()
    yield from frame[keep].itertuples(index=False)
