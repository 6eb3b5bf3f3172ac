"""What a page says of the runs behind it: sizes, machines, time, digests."""

from __future__ import annotations

from typing import Any

import pandas as pd

from bpgo.analysis import roles
from bpgo.analysis.cut_prompts import say_cut
from bpgo.analysis.roles import arm_title, reward_title
from bpgo.analysis.tables.format import how_differences, how_intervals
from bpgo.config.given import GivenPolicy
from bpgo.config.settings import Settings


def facts(settings: Settings, account: dict[str, Any], cost: pd.DataFrame) -> dict[str, str]:
    """What was run, on what, for how long, and the digests that prove it."""
    runs = account.get("runs", [])
    machines = {
        f"{(run.get('hardware') or {}).get('processor', 'unknown')},"
        f" {(run.get('hardware') or {}).get('cores', '?')} cores"
        for run in runs
    }
    versions = {
        ", ".join(f"{name} {version}" for name, version in (run.get("packages") or {}).items())
        for run in runs
    }
    seconds = [float(run["wall_seconds"]) for run in runs if run.get("wall_seconds")]
    training, rollout = settings.training, settings.rollout
    codes = sorted({str(run.get("code_digest")) for run in runs})
    found = {
        "Model": settings.model.title,
        "Samples": _samples(settings),
        "Training": f"{training.iterations} iterations, {rollout.prompts_per_iteration} prompts ×"
        f" {rollout.group_size} samples, {rollout.steps} sampler steps,"
        f" {training.optimizer_steps} optimizer steps, learning rate {training.learning_rate:g}"
        + "".join(f", {arm} {rate:g}" for arm, rate in training.learning_rates.items()),
        "Evaluation": f"{settings.evaluation.prompts} held-out prompts,"
        f" {settings.evaluation.samples_per_prompt} sample(s) a prompt and seed, ODE sampler with"
        f" {settings.evaluation.steps} steps",
        "Intervals": f"{how_intervals(settings)}; {how_differences(settings)}",
        "Runs": f"{account['complete_runs']} of {account['expected_runs']} complete",
        "Training time": _duration(seconds),
        "Time per iteration": f"{cost['seconds'].median():.2f} s (median)"
        if len(cost)
        else "unknown",
        "Machine": "; ".join(sorted(machines)) or "unknown",
        "Packages": "; ".join(sorted(versions)) or "unknown",
        "Configuration digest": settings.digest(),
        "Code digest": ", ".join(codes) or "unknown",
    }
    if account.get("cut_prompts"):
        found["Prompts read in part"] = (
            " ".join(say_cut(settings, account["cut_prompts"])) or "none"
        )
    if settings.policies:
        found["Given policies"] = "; ".join(map(_source, settings.policies.values()))
    collected = account.get("config_digest", settings.digest())
    if collected != settings.digest():
        found["Collected under"] = f"configuration digest {collected}, before this one"
    if account.get("mixed_code", len(codes) > 1):
        found["Warning"] = "runs of different versions of the code are mixed here"
    return found


def _source(policy: GivenPolicy) -> str:
    """Where a policy comes from that was trained elsewhere, and what proves it."""
    digests = ", ".join(digest[:16] for digest in policy.files.values())
    return f"{policy.title}: {policy.source or policy.place} (SHA-256 {digests})"


def _samples(settings: Settings) -> str:
    model = settings.model
    size = f"{model.columns} × {model.resolution} pixels"
    if model.makes == "image":
        return f"images of {size}"
    given = "from a given first frame, " if model.task == "i2v" else ""
    return (
        f"clips of {model.frames} frames of {size}, {given}"
        f"shown at {model.frames_per_second:g} frames a second"
    )


def _duration(seconds: list[float]) -> str:
    if not seconds:
        return "unknown"
    mean = sum(seconds) / len(seconds)
    return f"{sum(seconds) / 60:.1f} min over all runs, {mean:.0f} s a run on average"


def experiments(settings: Settings) -> list[dict[str, str]]:
    """One row an experiment: what trains, who judges, which arms and seeds."""
    return [
        {
            "title": entry.title,
            "training": reward_title(settings, entry.training_reward),
            "judges": ", ".join(reward_title(settings, name) for name in entry.judges),
            "main": reward_title(settings, roles.main_metric(settings, name_of)),
            "arms": ", ".join(arm_title(settings, arm) for arm in roles.arms_of(settings, name_of)),
            "seeds": ", ".join(str(seed) for seed in entry.seeds),
        }
        for name_of, entry in settings.experiments.items()
    ]
