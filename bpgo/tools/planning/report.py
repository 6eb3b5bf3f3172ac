"""A plan for people."""

from __future__ import annotations

import json

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bpgo.config.overlays import Files
from bpgo.tools.planning.cost import Time
from bpgo.tools.planning.model import sample_size
from bpgo.tools.planning.run import Plan, as_json, check_scale, make_plan
from bpgo.tools.screen import duration, gigabytes, show, table

RULES = {
    "draw": "base policy",
    "calibrate": "its rewards",
    "train": "training runs",
    "sample_base": "base policy",
    "sample": "trained policies",
    "score": "scores of the samples",
    "harm_base": "base policy",
    "harm": "trained policies",
}


def show_plan(
    configfile: Files, scale: str, gpu: str | None, devices: int | None, json_wanted: bool
) -> None:
    """The command `plan`: print it, as JSON if asked."""
    check_scale(scale)
    plan = make_plan(configfile, scale, gpu, devices)
    if json_wanted:
        print(json.dumps(as_json(plan), indent=2))
    else:
        show(report(plan))


def report(plan: Plan) -> RenderableType:
    """The whole plan, on one screen."""
    return Group(
        _header(plan), "", _work(plan), "", _cost(plan), "", *[Text(line) for line in _notes(plan)]
    )


def _header(plan: Plan) -> Text:
    settings, size = plan.settings, plan.size
    trained = f"{size.trained:,} trained ({settings.training.parameters})"
    return Text(
        f"Plan: {settings.title}, {settings.scale} scale\n"
        f"{settings.model.title}: {size.transformer.parameters:,} parameters, {trained},"
        f" {sample_size(settings)}\n"
        f"{sum(plan.work.jobs.values())} jobs, {len(settings.runs())} training runs"
    )


def _work(plan: Plan) -> Table:
    work, time = plan.work, plan.time
    found = table(
        "Jobs", "Count", "Forward passes", "With backward", "Images", "Reward calls", "Each", "All"
    )
    for rule, words in RULES.items():
        numbers = (
            work.total(name, rule) for name in ("forwards", "updates", "decoded", "reward_calls")
        )
        found.add_row(
            f"{rule} ({words})",
            f"{work.jobs.get(rule, 0):,}",
            *(f"{number:,}" if number else "" for number in numbers),
            duration(time.each.get(rule, 0.0)),
            duration(time.by_rule.get(rule, 0.0)),
        )
    others = {rule: count for rule, count in work.jobs.items() if rule not in RULES}
    seconds = sum(time.by_rule.get(rule, 0.0) for rule in others)
    found.add_row(
        f"others ({', '.join(others)})", str(sum(others.values())), *[""] * 5, duration(seconds)
    )
    return found


def _cost(plan: Plan) -> Table:
    time, device = plan.time, "CPU core" if plan.device == "cpu" else plan.device
    found = table("Cost", "", "")
    for name, value, remark in (
        ("wall time", duration(time.wall), _devices(time, device)),
        ("device hours", f"{time.device_hours:.1f}", f"of one {device}"),
        ("text encoders", f"{plan.work.texts:,} texts", "once for all runs"),
        *(("disk", gigabytes(value), name) for name, value in plan.disk.lasting.items()),
        ("disk", gigabytes(plan.disk.passing), "resumable state, while runs go on"),
        *(
            ("memory", gigabytes(value), name)
            for name, value in plan.memory.standing.items()
            if value
        ),
        *(
            ("memory", gigabytes(value), f"{name}, for a time")
            for name, value in plan.memory.passing.items()
            if value
        ),
        ("memory", gigabytes(plan.memory.per_sample), "each sample of a batch in the update"),
        ("memory", gigabytes(plan.memory.least), "least: one sample at a time"),
        ("host memory", gigabytes(plan.host), "of one job: weights while they load, embeddings"),
    ):
        found.add_row(name, value, remark)
    return found


def _devices(time: Time, device: str) -> str:
    run = f", {time.devices_of_a_run} for each run" if time.devices_of_a_run > 1 else ""
    return f"with {time.devices} x {device}{run}"


def _notes(plan: Plan) -> list[str]:
    notes = [f"Rates: {plan.rates.source}."]
    if plan.assumed:
        notes.append(
            f"This machine has no GPU that could do it: an {plan.device} is assumed (--gpu)."
        )
    if plan.fitting_batch == 0:
        notes.append(
            f"It does not fit: {gigabytes(plan.memory.least)} are needed with one sample at a time,"
            f" {gigabytes(plan.device_gigabytes)} are there. What lowers it: training.parameters:"
            " lora, the model's gradient_checkpointing or resolution, more GPUs for a job."
        )
    else:
        notes.append(f"Samples of a batch that fit in the update: about {plan.fitting_batch:,}.")
    return notes
