"""The paper's claims as tests on our statistics.

Each claim is a list of tests; a test is one estimate with its interval and the side on which the
claim expects it. A test is *supported* if the whole interval lies on that side, *contradicted* if
it lies on the other, *equivalent* if it lies within the margin below which a difference does not
matter, *not resolved* otherwise. A claim is supported if all its tests are, contradicted if any is,
equivalent if all tests are supported or equivalent; among tests of one `any` group the best one
counts.

Many tests find something by chance. So a claim has p-values: of support the largest of its tests'
(all must hold), where an `any` group counts with its smallest times its number; of contradiction
the smallest times the number of tests. Holm's correction runs over the claims of an experiment, and
a claim whose corrected p-value is too large is not resolved.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from bpgo.analysis import STATISTICS, roles
from bpgo.analysis.roles import HELD_OUT, ORACLE, TRAINING, arm_title, reward_title
from bpgo.analysis.statistics.critical import EQUIVALENT, UNRESOLVED, holm
from bpgo.analysis.statistics.premise import FIXED
from bpgo.config.settings import BASE_ARM, Settings

SUPPORTED, CONTRADICTED = "supported", "contradicted"
RELIABILITY = "gain"  # the measure that is defined for every group
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
    "read": "Beyond the paper: also among equally ambiguous prompts, what RAS reads tells which"
    " groups the training reward ranks reliably.",
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
    df: float = np.nan  # of the interval; unknown: units - 1
    margin: float = 0.0  # a difference within it does not matter
    detectable: float = np.nan  # smallest difference that 80 % power finds

    def verdict(self) -> str:
        """See the module's description; without an interval nothing is resolved."""
        if not (np.isfinite(self.low) and np.isfinite(self.high)):
            return UNRESOLVED
        if self.null - self.margin < self.low and self.high < self.null + self.margin:
            return EQUIVALENT
        over, under = self.low > self.null, self.high < self.null
        right, wrong = (over, under) if self.above else (under, over)
        return SUPPORTED if right else CONTRADICTED if wrong else UNRESOLVED

    def p_values(self, confidence: float) -> tuple[float, float]:
        """One-sided p-values: that the estimate lies on the claim's side, and on the other.

        From the interval, as if it were symmetric, by Student's t. 1 without an interval.
        """
        df = self.df if np.isfinite(self.df) else max(self.n_seeds, self.n_groups) - 1
        if not (np.isfinite(self.low) and np.isfinite(self.high) and df > 0):
            return 1.0, 1.0
        se = (self.high - self.low) / 2 / stats.t.ppf((1 + confidence) / 2, df)
        distance = (self.estimate - self.null) * (1 if self.above else -1)
        if se == 0:
            return float(distance <= 0), float(distance >= 0)
        return float(stats.t.sf(distance / se, df)), float(stats.t.cdf(distance / se, df))


def overall(tests: list[Check]) -> str:
    """The claim's verdict from those of its tests, not corrected for the number of claims."""
    verdicts = [test.verdict() for test in tests if not test.any_group]
    for inside in _any_groups(tests):
        order = (SUPPORTED, UNRESOLVED, EQUIVALENT, CONTRADICTED)
        verdicts.append(min((test.verdict() for test in inside), key=order.index))
    if CONTRADICTED in verdicts:
        return CONTRADICTED
    if not verdicts or UNRESOLVED in verdicts:
        return UNRESOLVED
    return EQUIVALENT if EQUIVALENT in verdicts else SUPPORTED


def claim_p(tests: list[Check], confidence: float) -> float:
    """Two-sided p-value of a claim (see the module's description)."""
    known = {id(test): test.p_values(confidence) for test in tests}
    right = [known[id(test)][0] for test in tests if not test.any_group]
    wrong = [known[id(test)][1] for test in tests if not test.any_group]
    for inside in _any_groups(tests):
        right.append(min(1.0, len(inside) * min(known[id(test)][0] for test in inside)))
        wrong.append(max(known[id(test)][1] for test in inside))
    support, contradiction = max(right), min(1.0, len(wrong) * min(wrong))
    return min(1.0, 2 * min(support, contradiction))


def _any_groups(tests: list[Check]) -> list[list[Check]]:
    names = dict.fromkeys(test.any_group for test in tests if test.any_group)
    return [[test for test in tests if test.any_group == name] for name in names]


def judge_claims(settings: Settings, frames: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """One row a test: experiment, claim, statement, quantity, estimate, low, high, verdicts.

    `verdict` is the test's, `claim_verdict` the claim's in that experiment, `claim_p` its p-value
    by Holm. A claim whose arms or data are absent from an experiment has no rows there.
    """
    rows = []
    confidence = settings.analysis.confidence
    for experiment in settings.experiments:
        found: dict[str, list[Check]] = {}
        for test in _tests(settings, experiment, frames):
            found.setdefault(test.claim, []).append(test)
        corrected = holm([claim_p(tests, confidence) for tests in found.values()])
        p_values = dict(zip(found, corrected, strict=True))
        for claim in STATEMENTS:
            tests = found.get(claim, [])
            verdict = overall(tests)
            if verdict != EQUIVALENT and p_values.get(claim, 1.0) > 1 - confidence:
                verdict = UNRESOLVED
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
                    "detectable": test.detectable,
                    "verdict": test.verdict(),
                    "claim_p": p_values[claim],
                    "claim_verdict": verdict,
                }
                for test in tests
            ]
    return pd.DataFrame(rows, columns=STATISTICS["claims"])


def _tests(settings: Settings, experiment: str, frames: dict[str, pd.DataFrame]) -> Iterator[Check]:
    yield from _premise(settings, experiment, frames)
    yield from _read(settings, experiment, frames)
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
        yield Check(
            claim,
            quantity,
            *bounds,
            above,
            unit="base sd",
            any_group=any_group,
            df=row.df,
            margin=settings.analysis.equivalence_margin,
            detectable=row.detectable_alone_sd,
        )


def _premise(
    settings: Settings, experiment: str, frames: dict[str, pd.DataFrame]
) -> Iterator[Check]:
    reward = settings.experiments[experiment].training_reward
    wanted = {"experiment": experiment, "reward": reward, "measure": RELIABILITY}
    for row in _rows(frames["premise_summary"], by="ambiguity", **wanted):
        bounds = (row.mean, row.low, row.high)
        quantity = "Rank correlation of reliability with prompt ambiguity"
        yield Check("premise", quantity, *bounds, 0, False, n_groups=row.n_groups)
    yield from _gives_away(settings, experiment, frames, "premise", "")


def _read(settings: Settings, experiment: str, frames: dict[str, pd.DataFrame]) -> Iterator[Check]:
    yield from _gives_away(settings, experiment, frames, "read", FIXED)


def _gives_away(
    settings: Settings, experiment: str, frames: dict[str, pd.DataFrame], claim: str, ending: str
) -> Iterator[Check]:
    """Reliability with what the arm reads in training; without such an arm, with the group's mean.

    `ending` says whether ambiguity is held fixed.
    """
    given = ", ambiguity fixed" if ending else ""
    summary = frames["trust_summary"]
    for arm in (roles.RAS, roles.BPGO):
        wanted = {"experiment": experiment, "arm": arm, "reads": f"deviation{ending}"}
        rows = list(_rows(summary, measure=_measure(summary), **wanted))
        for row in rows:
            quantity = f"Rank correlation of reliability with group mean − prior{given},"
            quantity += f" {arm_title(settings, arm)}"
            yield Check(claim, quantity, row.mean, row.low, row.high, row.n_seeds)
        if rows:
            return
    reward = settings.experiments[experiment].training_reward
    wanted = {"experiment": experiment, "reward": reward, "measure": RELIABILITY}
    for row in _rows(frames["premise_summary"], by=f"group_mean{ending}", **wanted):
        bounds = (row.mean, row.low, row.high)
        quantity = f"Rank correlation of reliability with group's mean reward{given}"
        yield Check(claim, quantity, *bounds, 0, n_groups=row.n_groups)


def _measure(summary: pd.DataFrame) -> str:
    """How reliability in training was measured; groups of earlier versions have another measure."""
    return str(summary["measure"].iloc[0]) if len(summary) else RELIABILITY


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
            yield Check("convergence", f"{names}, {words}", *bounds, above, unit=unit, df=row.df)
    for row in _rows(frame, experiment=experiment, arm=roles.BPGO, measure="seconds"):
        quantity = f"Time per iteration, {arm_title(settings, roles.BPGO)} / {grpo}"
        bounds = (row.difference, row.difference_low, row.difference_high, row.n_seeds)
        yield Check("cost", quantity, *bounds, False, COST_MARGIN, unit="ratio", df=row.df)


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
        numbers = [value for value in sweep.values if not isinstance(value, str)]
        lower = [value for value in numbers if value < own]
        higher = [value for value in numbers if value > own]
        if not lower or not higher:
            continue
        for end in (min(lower), max(higher)):
            pair = (experiment, sweep.arm, sweep.arm_at(end), metric)
            yield from _difference(settings, frame, pair, "alpha")


def _trust(settings: Settings, experiment: str, frame: pd.DataFrame) -> Iterator[Check]:
    for arm in (roles.RAS, roles.BPGO):
        wanted = {"experiment": experiment, "arm": arm, "reads": "weight"}
        for row in _rows(frame, measure=_measure(frame), **wanted):
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
