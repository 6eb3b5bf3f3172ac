"""Every arm's iteration beside what its forward passes predict.

The prediction is one line: seconds = rest + forward * passes without gradient + (forward and
backward) * passes with one. Its three numbers are the reference arm's, measured in the same run;
what is not the transformer's counts as equal for all arms.
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
from bpgo.run.progress import Progress
from bpgo.tools.bench.iteration import REPLAYED, Instrument, iterations_of_two
from bpgo.tools.bench.measure import Seconds, summarize, trusted_clock
from bpgo.tools.planning.work import arm_passes, arm_work

Pair = tuple[dict[str, Seconds], dict[str, Seconds]]


@dataclass(frozen=True)
class Costs:
    """Seconds of one sample's pass, forward alone or with its backward pass, and of all the rest.

    `rest` is that of a whole iteration.
    """

    forward: float
    trained: float
    rest: float

    def iteration(self, forwards: int, trained: int) -> float:
        """An iteration with so many passes of all its samples."""
        return self.rest + self.forward * forwards + self.trained * trained


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
    entry = values["experiments"][experiment] | {"arms": list(dict.fromkeys((reference, name)))}
    values = {k: v for k, v in values.items() if k not in ("sweeps", *config.WORKFLOW_OPTIONS)}
    values["experiments"] = {experiment: entry}
    return config.resolve(values, configfile.parent, configfile.name)


def arm_figures(reference: Trainer, arms: dict[str, Trainer], pairs: int) -> dict[str, Any]:
    """Each arm's passes, its iteration over the reference arm's, and what the passes predict.

    The arms take turns, each right beside the reference arm, so that a machine that grows slower
    does so for both.
    """
    clock = trusted_clock(reference.policy.device)
    instrument = Instrument(reference)
    turns = {
        name: iter(iterations_of_two(instrument, Instrument(trainer), pairs))
        for name, trainer in arms.items()
    }
    measured: dict[str, list[Pair]] = {name: [] for name in arms}
    rows: list[dict[str, int]] = []
    with Progress("bench: arms", pairs) as progress:
        for turn in range(pairs):
            for name, each in turns.items():
                measured[name].append(next(each))
                rows.append(dict(instrument.rows))
            progress.step(turn + 1)
    if not arms:
        return {}
    first = [measured[name][turn][0] for turn in range(pairs) for name in arms]
    work = work_of(reference.settings, reference.settings.analysis.reference_arm)
    costs = costs_of(first, rows, work[0], clock)
    base = costs.iteration(*work)
    return {
        name: _figures(name, trainer.settings, measured[name], costs, base, clock)
        for name, trainer in arms.items()
    }


def _figures(
    name: str, settings: Settings, measured: list[Pair], costs: Costs, base: float, clock: str
) -> dict[str, Any]:
    ratio = costs.iteration(*work_of(settings, name)) / base
    found = [arm["total"].on(clock) / beside["total"].on(clock) for beside, arm in measured]
    return {
        "passes": asdict(arm_passes(settings, name)),
        "measured": summarize(found),
        "predicted": ratio,
        "measured_over_predicted": summarize([value / ratio for value in found]),
    }


def costs_of(
    iterations: list[dict[str, Seconds]], rows: list[dict[str, int]], forwards: int, clock: str
) -> Costs:
    """The medians over iterations of one arm, each with the rows of the calls that it replayed.

    `forwards` is how many passes without gradient an iteration has. Those that were not replayed
    are the base policy's, where that is a model of its own; they cost as much as the others.
    """
    forward, trained = (
        statistics.median(
            seconds[name].on(clock) / max(1, count[name])
            for seconds, count in zip(iterations, rows, strict=True)
        )
        for name in REPLAYED
    )
    rest = [
        (seconds["total"] - seconds["transformer"]).on(clock)
        - forward * max(0, forwards - count["forward"])
        for seconds, count in zip(iterations, rows, strict=True)
    ]
    return Costs(forward, trained, statistics.median(rest))


def work_of(settings: Settings, arm: str) -> tuple[int, int]:
    """Passes of an iteration's samples together, without and with a backward pass."""
    samples = settings.rollout.prompts_per_iteration * settings.rollout.group_size
    forwards, trained = arm_work(settings, arm)
    return samples * forwards, samples * trained
