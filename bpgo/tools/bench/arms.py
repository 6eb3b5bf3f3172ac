"""Every arm's iteration beside what its forward passes predict.

The prediction is one line: seconds = rest + the transformer's calls, forward alone or with backward
passes, each so much a call and so much a row. Its numbers are the reference arm's, measured in the
same run; what is not the transformer's counts as equal for all arms.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bpgo.config import resolve as config
from bpgo.config.settings import Settings
from bpgo.core.trainer import Trainer
from bpgo.errors import UserError, suggest
from bpgo.records import Passes
from bpgo.run.progress import Progress
from bpgo.tools.bench.iteration import (
    REPLAYED,
    Calls,
    Instrument,
    iterations_of_two,
    mean_passes,
    passes_made,
)
from bpgo.tools.bench.measure import Seconds, summarize, trusted_clock
from bpgo.tools.planning.work import arm_passes


@dataclass(frozen=True)
class Cost:
    """Seconds of the transformer's calls: for each, and for each of its rows."""

    call: float
    row: float

    def of(self, calls: Calls) -> float:
        """Seconds of these."""
        return self.call * calls.number + self.row * calls.rows


@dataclass(frozen=True)
class Costs:
    """Of calls by `REPLAYED`, and the seconds of all the rest of an iteration."""

    calls: dict[str, Cost]
    rest: float

    def iteration(self, made: dict[str, Calls]) -> float:
        """Seconds of an iteration with these calls."""
        return self.rest + sum(self.calls[kind].of(each) for kind, each in made.items())


@dataclass(frozen=True)
class Measured:
    """An iteration of the reference arm and one of another arm: seconds by part, calls made.

    `small` is a call of few rows, right after.
    """

    seconds: tuple[dict[str, Seconds], dict[str, Seconds]]
    made: tuple[dict[str, Calls], dict[str, Calls]]
    passes: Passes  # of the other arm
    small: dict[str, tuple[Seconds, Calls]]


def settings_by_arm(
    configfile: Path, experiment: str, reference: str, names: Sequence[str] | None
) -> tuple[dict[str, Settings], dict[str, str]]:
    """A configuration with each arm in its experiment's place; and why others cannot be there.

    Args:
        configfile: as `resolve` takes it; beside it is the folder `arms`.
        experiment: whose sizes and rewards an arm must fit.
        reference: the arm that is compared with.
        names: the arms; None: all of the folder but the reference arm.

    Raises:
        UserError: for one of `names` that is unknown or does not fit.
    """
    known = sorted(file.stem for file in (configfile.parent / "arms").glob("*.yaml"))
    for name in names or ():
        if name not in known:
            raise UserError(
                f"--arms: '{name}' is unknown.{suggest(name, known)} Known: {', '.join(known)}"
            )
    found, left_out = {}, {}
    for name in names if names is not None else known:
        if name == reference and names is None:
            continue
        try:
            found[name] = _with_arm(configfile, experiment, reference, name)
        except UserError as error:
            if names is not None:
                raise
            left_out[name] = " ".join(str(error).split())
    return found, left_out


def _with_arm(configfile: Path, experiment: str, reference: str, name: str) -> Settings:
    """The configuration with one experiment, and this arm beside the reference arm."""
    values = config.read_yaml(configfile)
    # A declared contrast may be of an arm that a sweep makes.
    changed = {"arms": list(dict.fromkeys((reference, name))), "primary": None}
    entry = values["experiments"][experiment] | changed
    values = {k: v for k, v in values.items() if k not in ("sweeps", *config.WORKFLOW_OPTIONS)}
    values["experiments"] = {experiment: entry}
    return config.resolve(values, configfile.parent, configfile.name, whole=False)


def arm_figures(reference: Trainer, arms: dict[str, Trainer], pairs: int) -> dict[str, Any]:
    """Each arm's passes, its iteration over the reference arm's, and what the passes predict.

    The arms take turns, each right beside the reference arm, so that a machine that grows slower
    does so for both.
    """
    clock = trusted_clock(reference.policy.device)
    beside = Instrument(reference)
    instruments = {name: Instrument(trainer) for name, trainer in arms.items()}
    turns = {
        name: iter(iterations_of_two(beside, instrument, pairs))
        for name, instrument in instruments.items()
    }
    measured: dict[str, list[Measured]] = {name: [] for name in arms}
    with Progress("bench: arms", pairs) as progress:
        for turn in range(pairs):
            for name, each in turns.items():
                pair = next(each)
                made, passes = (beside.made, instruments[name].made), instruments[name].entry
                measured[name].append(
                    Measured(pair, made, passes_made(passes), beside.small_call())
                )
            progress.step(turn + 1)
    if not arms:
        return {}
    costs = costs_of([one for each in measured.values() for one in each], clock)
    return {
        name: _figures(name, trainer.settings, measured[name], costs, clock)
        for name, trainer in arms.items()
    }


def _figures(
    name: str, settings: Settings, measured: list[Measured], costs: Costs, clock: str
) -> dict[str, Any]:
    samples = settings.rollout.prompts_per_iteration * settings.rollout.group_size
    found = [
        arm["total"].on(clock) / beside["total"].on(clock)
        for beside, arm in (one.seconds for one in measured)
    ]
    predicted = []
    for one in measured:
        beside, arm = map(costs.iteration, one.made)
        predicted.append(arm / beside)
    over = [ratio / expected for ratio, expected in zip(found, predicted, strict=True)]
    return {
        "passes": asdict(arm_passes(settings, name)),
        "passes_made": {
            kind: total / samples
            for kind, total in mean_passes([one.passes for one in measured]).items()
        },
        "measured": summarize(found),
        "predicted": statistics.median(predicted),
        "measured_over_predicted": summarize(over),
    }


def costs_of(measured: list[Measured], clock: str) -> Costs:
    """The medians over iterations of the reference arm."""
    calls = {kind: _median_cost([_cost(one, kind, clock) for one in measured]) for kind in REPLAYED}
    rest = [
        (seconds["total"] - seconds["transformer"]).on(clock)
        for seconds in (one.seconds[0] for one in measured)
    ]
    return Costs(calls, statistics.median(rest))


def _cost(one: Measured, kind: str, clock: str) -> Cost | None:
    """By an iteration's calls and a small one; None: there was no call.

    Two equations: all calls' seconds, and those of the small one.
    """
    made, (seconds, few) = one.made[0][kind], one.small[kind]
    if not made.rows:
        return None
    small, rows = seconds.on(clock) / few.number, few.rows / few.number
    every = one.seconds[0][kind].on(clock)
    more = made.rows - made.number * rows  # than if all calls were small
    row = max(0.0, every - made.number * small) / more if more > 0 else every / made.rows
    return Cost(max(0.0, every - row * made.rows) / made.number, row)


def _median_cost(costs: list[Cost | None]) -> Cost:
    known = [each for each in costs if each is not None]
    if not known:
        return Cost(0.0, 0.0)
    return Cost(
        *(statistics.median(getattr(one, part) for one in known) for part in ("call", "row"))
    )
