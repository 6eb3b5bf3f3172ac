"""`bench.json` for people."""

from __future__ import annotations

from typing import Any

# What the project asks of itself, on two cores; none of it is asserted anywhere.
TARGETS = {"outside": 0.03, "ratio": 1.01, "passes": 1.05, "startup": 3.0, "warm": 0.3}


def markdown(found: dict[str, Any]) -> str:
    """The whole report."""
    parts = [_header(found), _figures(found), _pieces(found), _batches(found)]
    return "\n\n".join([*parts, *_arms(found), _startup(found)]) + "\n"


def _header(found: dict[str, Any]) -> str:
    machine = found["machine"]
    hardware, packages = machine["hardware"], machine["packages"]
    clock = "processor" if found["clock"] == "cpu" else "wall-clock"
    versions = ", ".join(f"{name} {version}" for name, version in packages.items())
    batch = found["prompts"] * found["group_size"]
    return (
        f"# Benchmark: {found['title']}\n\n"
        f"{found['model']}, {found['transformer_parameters']:,} parameters,"
        f" {found['trained_parameters']:,} trained; experiment `{found['experiment']}`;"
        f" {found['prompts']} prompts x {found['group_size']} samples = {batch},"
        f" {found['steps']} sampling steps, {found['optimizer_steps']} optimizer steps.\n\n"
        f"Machine: {hardware['processor']}, {hardware['cores']} cores, {hardware['system']};"
        f" device `{found['gpu'] or found['device']}`, torch threads: {found['threads']};"
        f" Python {machine['python']}, {versions}.\n\n"
        f"Unless said otherwise: {clock} seconds, median with its 95 % interval (bootstrap) of"
        f" {found['share_outside_transformer']['n']} iterations."
    )


def _figures(found: dict[str, Any]) -> str:
    cpu, wall = (found["iteration_seconds"][kind] for kind in ("cpu", "wall"))
    rows = [["What", "Processor time", "Wall time"]]
    rows += [
        [f"Iteration of `{found['reference_arm']}`" if part == "total" else f"- {part}"]
        + [_seconds(times[part]) for times in (cpu, wall)]
        for part in cpu
    ]
    ratios = [
        ["What", "Measured", "Target"],
        [
            "Share of the iteration that is not the transformer's forward and backward",
            _percent(found["share_outside_transformer"]),
            "",
        ],
        [
            "Share of the iteration outside transformer, codec and rewards",
            _percent(found["share_outside_models"]),
            f"at most {TARGETS['outside']:.0%}",
        ],
        [
            f"Iteration of `{found['method_arm']}` over `{found['reference_arm']}`",
            _plain(found["method_over_reference"], 3),
            f"at most {TARGETS['ratio']}",
        ],
        [
            f"Rollout one sample at a time over batches of {found['batch_size']}",
            _plain(found["one_at_a_time_over_batched"], 2),
            "",
        ],
    ]
    kept = "keeps what it frees" if found["keeps_memory"] else "hands large blocks back"
    memory = (
        f"Page faults of an iteration: {_plain(found['page_faults'], 0)}; this process {kept}"
        " (Snakemake's jobs without a GPU keep it, by `GLIBC_TUNABLES`)."
    )
    tables = "\n\n".join(map(markdown_table, (rows, ratios)))
    return f"## One iteration\n\n{tables}\n\n{memory}"


def _pieces(found: dict[str, Any]) -> str:
    rows = [["Piece", "Share of the iteration"]]
    rows += [[name, _percent(share)] for name, share in found["shares"].items()]
    return (
        f"## Where it goes\n\n{markdown_table(rows)}\n\n"
        "The transformer's part is measured by making the iteration's own calls again, bare:"
        " forward, and backward where the iteration had one. `everything else` is the rest:"
        " noise, sampler, advantages, loss, gradient clipping, and the difference between the"
        " calls inside the iteration and alone."
    )


def _batches(found: dict[str, Any]) -> str:
    """An iteration by the samples of a forward pass."""
    rows = [["Samples a forward pass", "Iteration", "Over the configured one"]]
    configured = found["batches"]["configured_seconds"]
    size = f"{found['batch_size']}, as configured: equal starts once"
    rows += [[size, _seconds(configured), "1"]]
    rows += [
        [size, _seconds(each["seconds"]), _plain(each["over_configured"], 2)]
        for size, each in found["batches"]["by_samples_a_pass"].items()
    ]
    return (
        f"## Iteration of `{found['reference_arm']}` by the samples of a forward pass\n\n"
        f"{markdown_table(rows)}\n\n"
        "The same samples, steps, reward and update, each sample computed on its own. flow_grpo's"
        " FLUX configuration has 3 samples a forward pass and groups of 24 (`config/grpo.py` at"
        " 31c71b9, `pickscore_flux`); DanceGRPO's loop takes one sample at a time. This is our own"
        " core at their sizes, not their code. Expect no such factor of a model whose forward pass"
        " fills its device: there, 4 samples at a time were 1.1 times as fast as one."
    )


def _arms(found: dict[str, Any]) -> list[str]:
    """What each arm's iteration takes, beside what its forward passes predict."""
    kinds = ("rollout", "trained", "others")
    rows = [["Arm", "Passes asked", "Made", "Measured", "Predicted", "Measured over it"]]
    rows += [
        [
            f"`{name}`",
            " + ".join(str(arm["passes"][kind]) for kind in kinds),
            " + ".join(f"{arm['passes_made'][kind]:.2f}" for kind in kinds),
            _plain(arm["measured"], 3),
            f"{arm['predicted']:.3f}",
            _plain(arm["measured_over_predicted"], 3),
        ]
        for name, arm in found["arms"].items()
    ]
    text = (
        f"## Arms beside `{found['reference_arm']}`\n\nTransformer passes of a sample in an"
        " iteration: of the rollout, with gradient, and of further policies, as the arm asks for"
        " them and as they were made (samples that are still alike are computed once, groups"
        " without advantage are left out). `Measured`: an arm's"
        f" iteration over that of `{found['reference_arm']}` next to it. `Predicted`: the same by"
        " the transformer's calls that were made, with the seconds of a call and of each of its"
        " rows, forward alone and with the backward pass, and of everything else in an iteration of"
        f" `{found['reference_arm']}`. Target: at most {TARGETS['passes']} of what is predicted."
    )
    left_out = [f"- `{name}` is left out. {why}" for name, why in found["arms_left_out"].items()]
    return [text, markdown_table(rows), *(["\n".join(left_out)] if left_out else [])]


def _startup(found: dict[str, Any]) -> str:
    rows = [["Command", "Cold: processor", "Cold: wall", "Warm: processor", "Warm: wall"]]
    rows += [
        [f"`{command}`"]
        + [
            f"{start[clock]:.2f} s" if start else ""
            for start in (cold, cold.get("warm"))
            for clock in ("cpu_seconds", "wall_seconds")
        ]
        for command, cold in found["startup"].items()
    ]
    return (
        f"## Start-up before work\n\nMedian of several, with the models that a command loads. Cold:"
        f" fresh processes; target: at most {TARGETS['startup']:.0f} s. Warm: jobs of a workflow,"
        f" whose server has imported before; target: at most {TARGETS['warm']} s.\n\n"
        + markdown_table(rows)
    )


def markdown_table(rows: list[list[str]]) -> str:
    """A table; the first row is its head."""
    head, *body = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([head, "|" + " --- |" * len(rows[0]), *body])


def _seconds(value: dict[str, float]) -> str:
    return f"{_plain(value, 3)} s"


def _percent(value: dict[str, float]) -> str:
    return f"{value['median']:.1%} ({value['low']:.1%} to {value['high']:.1%})"


def _plain(value: dict[str, float], digits: int) -> str:
    return f"{value['median']:.{digits}f} ({value['low']:.{digits}f} to {value['high']:.{digits}f})"
