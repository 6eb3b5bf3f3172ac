"""`bench_{model}.json` for people."""

from __future__ import annotations

from typing import Any

from bpgo.tools.bench.report import markdown_table
from bpgo.tools.screen import gigabytes

# What the project asks of itself, on a GPU; outside the models by what a sample is.
TARGETS = {"image": 0.05, "video": 0.1, "ratio": 1.01}


def markdown(found: dict[str, Any]) -> str:
    """The whole report."""
    parts = [_header(found), _speeds(found), _iterations(found), _shares(found)]
    return "\n\n".join(parts) + "\n"


def _header(found: dict[str, Any]) -> str:
    machine, peak = found["machine"], found["peak_flops"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    device = found["gpu"] or machine["hardware"]["processor"]
    speed = f"peak {peak / 1e12:.0f} TFLOP/s (bfloat16, dense)" if peak else "peak unknown"
    batch = found["prompts"] * found["group_size"]
    guided = ", each with a second pass" if found["passes_per_step"] > 1 else ""
    tiny = "" if found["size"] == "full" else f", {found['size']} copy"
    return (
        f"# Benchmark: {found['title']} with random weights{tiny}\n\n"
        f"{found['transformer_parameters']:,} parameters, {found['tokens']:,} tokens"
        f" ({found['sample']}), {found['dtype']};"
        f" {found['prompts']} prompts x {found['group_size']} samples = {batch},"
        f" {found['steps']} sampling steps, guidance {found['guidance_scale']:g}"
        f"{guided}; reward: {found['reward']};"
        f" torch.compile with {found['compile_backend']}.\n\n"
        f"Device: {device}, {gigabytes(found['device_gigabytes'])}, {speed}; Python"
        f" {machine['python']}, {versions}.\n\n"
        "Weights and text embeddings are random: they change no cost. Everything else is the code"
        f" that trains. Medians of {found['repeats']} repeats."
    )


def _speeds(found: dict[str, Any]) -> str:
    unit = "clips" if found["makes"] == "video" else "images"
    rows = [
        [
            "Case",
            "Batch",
            f"Rollout, {unit}/s",
            f"One at a time, {unit}/s",
            f"Update, {unit}/s",
            "Model FLOPs of peak: rollout",
            "update",
            "Peak memory: rollout",
            "iteration",
            "by the plan",
        ]
    ]
    for case in found["cases"]:
        if case["status"] != "measured":
            rows.append([_name(case), str(case.get("batch_size", "")), case["status"], *[""] * 7])
            continue
        single = case["rollout_seconds_per_sample"]["one_at_a_time"]["median"]
        batched = case["rollout_seconds_per_sample"]["batched"]["median"]
        rows.append(
            [
                _name(case),
                str(case["batch_size"]),
                f"{1 / batched:.3g}",
                f"{1 / single:.3g}",
                f"{case['images_per_second']['update']:.3g}",
                *(_share(case["model_flops"][part]) for part in ("rollout", "update")),
                *(_memory(case["peak_gigabytes"][part]) for part in ("rollout", "iteration")),
                _memory(case["planned_gigabytes"]),
            ]
        )
    return f"## Speed\n\n{markdown_table(rows)}"


def _iterations(found: dict[str, Any]) -> str:
    outside = TARGETS[found["makes"]]
    rows = [
        [
            "Case",
            "Iteration",
            "rollout",
            "decoding and reward",
            "update",
            f"BPGO over GRPO (target {TARGETS['ratio']})",
            f"Outside transformer, decoder, reward (target {outside:.0%})",
            "Largest difference of a first ratio from 1",
        ]
    ]
    for case in _measured(found):
        times = case["iteration_seconds"]["wall"]
        rows.append(
            [
                _name(case),
                *(f"{times[part]['median']:.3g} s" for part in ("total", "rollout", "reward")),
                f"{times['update']['median']:.3g} s",
                f"{case['method_over_reference']['median']:.3f}",
                f"{case['share_outside_models']:.1%}",
                f"{case['ratio_deviation']:.2g}",
            ]
        )
    return f"## One iteration\n\n{markdown_table(rows)}"


def _shares(found: dict[str, Any]) -> str:
    cases = _measured(found)
    names = list(cases[0]["shares"]) if cases else []
    rows = [["Piece", *(_name(case) for case in cases)]]
    rows += [[name, *(f"{case['shares'][name]['median']:.1%}" for case in cases)] for name in names]
    return f"## Where the time goes\n\n{markdown_table(rows)}"


def _measured(found: dict[str, Any]) -> list[dict[str, Any]]:
    return [case for case in found["cases"] if case["status"] == "measured"]


def _name(case: dict[str, Any]) -> str:
    compiled = ", compiled" if case["compiled"] else ""
    again = ", gradient checkpointing" if case["gradient_checkpointing"] else ""
    return f"{case['parameters']}{compiled}{again}"


def _share(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.1%}"


def _memory(value: float | None) -> str:
    return "unknown" if value is None else gigabytes(value)
