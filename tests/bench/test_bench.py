"""The benchmark at its smallest size: it runs, adds up, and knows every command."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
import yaml
from tiny_world import make_trainer

from bpgo import cli
from bpgo.config import resolve as config
from bpgo.config.runs import Run, Sampler
from bpgo.errors import UserError
from bpgo.tools.bench.iteration import PARTS, PIECES, Instrument, iterations_of_two
from bpgo.tools.bench.measure import Seconds, Stopwatch, summarize, trusted_clock
from bpgo.tools.bench.run import run_bench
from bpgo.tools.bench.startup import NOT_TIMED, WORK, options_of, startup_seconds

Found = tuple[dict[str, Any], Path]


def test_two_files_and_nothing_else(found: Found) -> None:
    figures, output = found
    assert {path.name for path in output.iterdir()} == {"bench.json", "bench.md"}
    assert json.loads((output / "bench.json").read_text()) == figures


def test_parts_add_up(found: Found) -> None:
    figures, _ = found
    for times in figures["iteration_seconds"].values():
        assert set(times) == {"total", *PARTS}
        assert all(value["median"] > 0 for value in times.values())
        assert times["total"]["n"] == 4
    assert set(figures["shares"]) == {"transformer", *PIECES, "everything else"}
    assert sum(value["median"] for value in figures["shares"].values()) == pytest.approx(1, abs=0.3)
    assert figures["page_faults"]["n"] == 4
    assert figures["page_faults"]["low"] >= 0
    assert figures["method_over_reference"]["median"] > 0
    assert figures["one_at_a_time_over_batched"]["median"] > 0
    outside = figures["share_outside_models"]["median"]
    assert outside < figures["share_outside_transformer"]["median"]
    assert list(figures["batches"]["by_samples_a_pass"]) == ["96", "24", "3", "1"]
    steps = {"draw", "calibrate", "judge", "sample", "sample-base"}  # each reaches its work
    assert set(figures["startup"]) == {"schema", "prompts"} | steps


@pytest.mark.skipif(sys.platform != "linux", reason="the server needs Linux")
def test_a_warm_start_takes_less(found: Found) -> None:
    """Of what is a job in a workflow; the imports of its server are not counted."""
    figures, _ = found
    cold = figures["startup"]["prompts"]
    assert cold["warm"]["cpu_seconds"] < cold["cpu_seconds"]
    assert "warm" not in figures["startup"]["schema"]


def test_report_names_what_was_measured(found: Found) -> None:
    figures, output = found
    text = (output / "bench.md").read_text()
    machine = figures["machine"]
    for word in (
        "rollout",
        "reward",
        "update",
        "decode",
        "Page faults of an iteration",
        "`bpgo` over `grpo`",
        "`schema`",
        "4, as configured",
        "| 24 | ",
        machine["hardware"]["processor"],
        f"torch {machine['packages']['torch']}",
        "torch threads: 1",
    ):
        assert word in text
    assert "20" + "26-" not in text  # no date: a second run on the same machine reads alike


def test_every_command_is_known() -> None:
    commands = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
    assert set(WORK) | set(NOT_TIMED) == set(commands)
    names = ("configfile", "config", "train", "evaluation", "draws", "calibration", "trained")
    names = (*names, "samples", "output")
    options = options_of(
        {name: Path(name) for name in names}, Run("clear", "grpo", 1), Sampler("dance", 0.6)
    )
    for command, given in options.items():
        required = {p.opts[0] for p in commands[command].params if p.required}
        assert required <= set(given), command


def test_a_command_that_fails_before_its_work(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"'prompts' did not come to its work: error: .*no such file"
    ):
        startup_seconds(
            ["prompts"],
            {"prompts": ["--config", "missing.yaml", "--split", "train", "--output", "x"]},
            repeats=1,
        )


def test_configuration_without_the_method(configfile: Path, tmp_path: Path) -> None:
    values = config.read_yaml(configfile)
    for experiment in values["experiments"].values():
        experiment["arms"] = ["grpo"]
    other = configfile.with_name("without.yaml")
    other.write_text(yaml.safe_dump(values))
    with pytest.raises(UserError, match="'bpgo' is unknown"):
        run_bench(other, tmp_path / "output", 1)
    assert not (tmp_path / "output").exists()


def test_measuring_changes_no_result(tiny: Path, tmp_path: Path) -> None:
    """The replay of the transformer's calls leaves weights and optimizer as they were."""
    plain, watched = (make_trainer(tiny, tmp_path / name) for name in "ab")
    instrument = Instrument(watched)
    for iteration in (1, 2):
        plain.iterate(iteration)
        seconds = instrument.iterate(iteration, replay=True)
        assert seconds["transformer"].wall > 0
    for name, value in plain.parameters.items():
        assert torch.equal(value, watched.parameters[name])


def test_replay_makes_the_same_calls(tiny: Path, tmp_path: Path) -> None:
    instrument = Instrument(make_trainer(tiny, tmp_path))
    counts: list[tuple[int, bool]] = []
    instrument.trainer.policy.transformer.register_forward_hook(
        lambda _module, _inputs, output: counts.append((len(output[0]), torch.is_grad_enabled()))
    )
    instrument.iterate(1, replay=True)
    half = len(counts) // 2
    assert counts[:half] == counts[half:]
    assert counts[:half] == [(8, False)] * 4 + [(8, True)] * 2


def test_pairs_alternate(tiny: Path, tmp_path: Path) -> None:
    order: list[str] = []
    instruments = []
    for name in ("grpo", "bpgo"):
        instrument = Instrument(make_trainer(tiny, tmp_path / name, arm=name))
        real = instrument.trainer.iterate

        def watched(iteration: int, name: str = name, real: Any = real) -> Any:
            order.append(f"{name} {iteration}")
            return real(iteration)

        instrument.trainer.iterate = watched  # type: ignore[method-assign]
        instruments.append(instrument)
    pairs = list(iterations_of_two(instruments[0], instruments[1], 2))
    assert len(pairs) == 2
    assert order[2:] == ["grpo 2", "bpgo 2", "bpgo 3", "grpo 3"]


def test_summary() -> None:
    assert summarize([2.0]) == {"median": 2.0, "low": 2.0, "high": 2.0, "n": 1}
    found = summarize([1.0, 2.0, 3.0, 4.0, 100.0])
    assert found["median"] == 3.0
    assert 1.0 <= found["low"] <= 3.0 <= found["high"] <= 100.0
    assert summarize([1.0, 2.0, 3.0]) == summarize([1.0, 2.0, 3.0])


def test_stopwatch_counts_by_part() -> None:
    watch = Stopwatch(torch.device("cpu"))
    double = watch.wrap(lambda value: 2 * value, "double")
    assert [double(value) for value in range(3)] == [0, 2, 4]
    assert set(watch.parts) == {"double"}
    assert watch.parts["double"].wall > 0
    first = watch.clock()
    assert watch.clock() >= first
    assert len(watch.readings) == 2
    watch.reset()
    assert not watch.parts
    assert not watch.readings
    assert Seconds(2, 1) - Seconds(0.5, 0.5) + Seconds(1, 1) == Seconds(2.5, 1.5)
    assert (Seconds(2, 1).on("wall"), Seconds(2, 1).on("cpu")) == (2, 1)
    assert trusted_clock(torch.device("cpu")) == "cpu"
    assert trusted_clock(torch.device("cuda")) == "wall"


@pytest.mark.parametrize("command", sorted(WORK))
def test_where_work_begins_exists(command: str) -> None:
    module, _, path = WORK[command].partition(":")
    place: object = import_module(module)
    for name in path.split("."):
        place = getattr(place, name)
    assert callable(place)
