"""What a benchmark measures of trainers: rollouts by batch size, and whole iterations."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bpgo.core.layout import Layout
from bpgo.core.trainer import Trainer
from bpgo.records import Plan
from bpgo.run.allocator import keeps_memory
from bpgo.run.progress import Progress
from bpgo.tools.bench import iteration as iterations
from bpgo.tools.bench.iteration import PARTS, PIECES, Instrument, mean_passes, passes_made
from bpgo.tools.bench.measure import Seconds, summarize, trusted_clock

SAMPLES_A_PASS = (96, 24, 3, 1)
"""Ours; flow_grpo's groups and forward passes for FLUX; DanceGRPO's one at a time."""


def rollout_figures(trainer: Trainer, repeats: int) -> dict[str, Any]:
    """Seconds a sample, in the configuration's batches and one sample at a time."""
    sizes, clock = trainer.settings.rollout, trusted_clock(trainer.policy.device)
    many, few = sizes.prompts_per_iteration * sizes.group_size, sizes.group_size
    batched: list[float] = []
    single: list[float] = []
    with Progress("bench: rollouts", repeats) as progress:
        for repeat in range(repeats + 1):  # the first warms up
            for found, size, samples in (
                (batched, trainer.updater.batch_size, many),
                (single, 1, few),
            ):
                seconds = iterations.rollout_seconds(trainer, size, samples, repeat)
                if repeat:
                    found.append(seconds.on(clock) / samples)
            if repeat:
                progress.step(repeat)
    ratios = [one / together for one, together in zip(single, batched, strict=True)]
    return {
        "rollout_seconds_per_sample": {
            "batched": summarize(batched),
            "one_at_a_time": summarize(single),
        },
        "one_at_a_time_over_batched": summarize(ratios),
    }


def batch_figures(trainer: Trainer, repeats: int) -> dict[str, Any]:
    """An iteration with forward passes of `SAMPLES_A_PASS`, over one as configured.

    With these sizes each sample is computed on its own, as in a loop that shares nothing.
    """
    clock, updater = trusted_clock(trainer.policy.device), trainer.updater
    own, layout = updater.batch_size, updater.layout
    shared: list[float] = []
    found: dict[int, list[float]] = {size: [] for size in SAMPLES_A_PASS}
    instrument = Instrument(trainer)

    def alone(plan: Plan, group_size: int) -> Layout:
        return replace(layout(plan, group_size), alike=None)

    with Progress("bench: samples a forward pass", repeats) as progress:
        instrument.iterate(1)  # warms up
        for repeat in range(repeats):
            shared.append(instrument.iterate(2 + repeat)["total"].on(clock))
            for size, seconds in found.items():
                updater.batch_size, updater.layout = size, alone  # type: ignore[method-assign]
                seconds.append(instrument.iterate(2 + repeat)["total"].on(clock))
                updater.batch_size, updater.layout = own, layout  # type: ignore[method-assign]
            progress.step(1 + repeat)
    return {
        "configured_seconds": summarize(shared),
        "by_samples_a_pass": {
            str(size): {
                "seconds": summarize(seconds),
                "over_configured": summarize(
                    [one / ours for one, ours in zip(seconds, shared, strict=True)]
                ),
            }
            for size, seconds in found.items()
        },
    }


def iteration_figures(trainers: list[Trainer], pairs: int) -> dict[str, Any]:
    """Both arms' iterations: their parts, the transformer's share, and the ratio of the two."""
    clock = trusted_clock(trainers[0].policy.device)
    reference, method = instruments = [Instrument(trainer) for trainer in trainers]
    measured, made, faults, deviation = [], [], [], 0.0
    with Progress("bench: iterations", pairs) as progress:
        for pair in iterations.iterations_of_two(reference, method, pairs):
            measured.append(pair)
            made.append(passes_made(reference.entry))
            faults.append(reference.page_faults)
            deviation = max(deviation, *(arm.entry["ratio_deviation"] for arm in instruments))
            progress.step(len(measured))
    first = [pair[0] for pair in measured]
    outside = [_share_outside(seconds, clock) for seconds in first]
    return {
        "iteration_seconds": {
            kind: {
                part: summarize([seconds[part].on(kind) for seconds in first])
                for part in ("total", *PARTS)
            }
            for kind in ("cpu", "wall")
        },
        "transformer_seconds": summarize([seconds["transformer"].on(clock) for seconds in first]),
        "share_outside_transformer": summarize(outside),
        "share_outside_models": summarize([_share_outside_models(each, clock) for each in first]),
        "shares": _shares(first, clock),
        "page_faults": summarize(faults),
        "keeps_memory": keeps_memory(),
        "ratio_deviation": deviation,
        "passes_made": mean_passes(made),
        "method_over_reference": summarize(
            [two["total"].on(clock) / one["total"].on(clock) for one, two in measured]
        ),
    }


def _share_outside(seconds: dict[str, Seconds], clock: str) -> float:
    return 1 - seconds["transformer"].on(clock) / seconds["total"].on(clock)


def _share_outside_models(seconds: dict[str, Seconds], clock: str) -> float:
    """Of the transformer, the codec and the rewards."""
    models = ("transformer", "decode", "training reward", "diagnostics")
    return 1 - sum(seconds[name].on(clock) for name in models) / seconds["total"].on(clock)


def _shares(measured: list[dict[str, Seconds]], clock: str) -> dict[str, dict[str, float]]:
    """Share of the iteration by piece; what no piece covers is `everything else`."""
    names = ("transformer", *PIECES)
    shares = {
        name: [seconds[name].on(clock) / seconds["total"].on(clock) for seconds in measured]
        for name in names
    }
    shares["everything else"] = [1 - sum(row) for row in zip(*shares.values(), strict=True)]
    return {name: summarize(values) for name, values in shares.items()}
