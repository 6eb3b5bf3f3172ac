"""Time, disk and memory; the command's words."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from large_model import write_configuration
from published_run import write_published

from bpgo.config import resolve as config
from bpgo.errors import UserError
from bpgo.run import machine
from bpgo.run.machine import GpuDevice
from bpgo.storage.files import read_json, repository_root, write_json
from bpgo.tools.planning.devices import known_gpu
from bpgo.tools.planning.rates import bench_folder
from bpgo.tools.planning.report import show_plan
from bpgo.tools.planning.run import Plan, as_json, make_plan

DEFAULT = config.default_configfile()


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without GPUs, whatever the one that runs the tests has."""
    monkeypatch.setattr(machine, "gpus", list)
    monkeypatch.setattr(machine, "cores", lambda: 2)
    monkeypatch.setattr(machine, "memory_bytes", lambda: 16 * 10**9)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_configuration(tmp_path_factory.mktemp("large"))


def with_gpu(monkeypatch: pytest.MonkeyPatch, name: str, gigabytes: float, count: int = 1) -> None:
    monkeypatch.setattr(machine, "gpus", lambda: [GpuDevice(name, gigabytes, "580")] * count)


def with_processor(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr("bpgo.tools.planning.rates.processor", lambda: name)


@pytest.fixture(autouse=True)
def of_the_published_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processor that they were made on, whatever these tests run on."""
    with_processor(monkeypatch, "AMD EPYC")


@pytest.mark.parametrize("name", ["AMD EPYC", "Intel(R) Xeon(R) Processor"])
def test_the_benchmark_of_this_machines_processor_counts(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    with_processor(monkeypatch, name)
    assert name in make_plan(DEFAULT).rates.source
    with_processor(monkeypatch, "another")
    assert "bench.json (AMD EPYC" in make_plan(DEFAULT).rates.source


def test_the_default_as_it_was_measured() -> None:
    """README's table: 46 minutes on two cores with a little other work beside it."""
    plan = make_plan(DEFAULT)
    assert plan.rates.measured
    assert plan.time.wall == pytest.approx(46 * 60, rel=0.2)
    assert plan.time.each["train"] == pytest.approx(63, rel=0.35)
    assert plan.time.by_rule["score"] == pytest.approx(7 * 60, rel=0.25)


def test_an_earlier_published_run(tmp_path: Path) -> None:
    """Measured: 342 MB of runs, 161 MB of samples. Its jobs imported everything by themselves."""
    bench = read_json(bench_folder() / "bench.json")
    for seconds in bench["startup"].values():
        seconds.pop("warm", None)
    write_json(tmp_path / "bench.json", bench)
    published = write_published(tmp_path)
    plan = make_plan(published, folder=tmp_path)
    assert plan.disk.lasting["runs"] == pytest.approx(0.342, rel=0.03)
    assert plan.disk.lasting["samples"] == pytest.approx(0.161, rel=0.03)
    assert plan.disk.lasting["embeddings"] == 1024 * 3328 / 1e9  # as the files are
    warm = make_plan(published)  # today's find a server that has imported before
    assert warm.time.wall < plan.time.wall
    for rule in ("train", "sample", "score"):
        assert 2 < plan.time.each[rule] - warm.time.each[rule] < 6


def test_more_devices_take_less_time() -> None:
    two, eight = make_plan(DEFAULT, devices=2), make_plan(DEFAULT, devices=8)
    # Not quite a quarter: there are only two calibrations, of samples drawn once.
    assert two.time.wall / 4 < eight.time.wall < two.time.wall / 3
    assert eight.time.by_rule == two.time.by_rule
    assert make_plan(DEFAULT, devices=1).time.each["train"] < two.time.each["train"]


def test_gpus_of_one_run_share_its_work(tmp_path: Path, large: Path) -> None:
    one = make_plan(large, gpu="H100", devices=8)
    four = make_plan(write_configuration(tmp_path, machine={"gpus": 4}), gpu="H100", devices=8)
    assert four.time.each["train"] == pytest.approx(one.time.each["train"] / 4)
    assert four.time.each["sample"] == one.time.each["sample"]
    assert four.time.device_hours == pytest.approx(one.time.device_hours)
    assert four.disk.passing < one.disk.passing  # two runs at a time instead of eight


def test_a_large_model_without_a_gpu_assumes_one_and_says_so(
    large: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    assert make_plan(large).rates.measured  # the published benchmark
    monkeypatch.setattr("bpgo.tools.planning.run.bench_folder", lambda: tmp_path)
    plan = make_plan(large)
    assert (plan.device, plan.assumed) == ("H100", True)
    assert not plan.rates.measured
    show_plan(large, "full", None, None, False)
    text = capsys.readouterr().out
    assert "estimate: operations at an assumed 35%" in text
    assert "no benchmark of this model on this GPU" in text
    assert "an H100 is assumed" in text
    assert "11,901,408,320 parameters" in text


def test_operations_over_speed(large: Path) -> None:
    """One forward pass of FLUX.1-dev at 512 pixels is 21.5 TFLOP."""
    plan = make_plan(large, gpu="A100")
    assert plan.rates.forward == pytest.approx(21.5e12 / (0.35 * 312e12), rel=0.01)
    assert plan.rates.update == pytest.approx(2.1 * plan.rates.forward, rel=0.05)


def test_memory_of_an_adapter_and_of_all_weights(large: Path, tmp_path: Path) -> None:
    lora = make_plan(large)
    assert lora.memory.standing["transformer"] == pytest.approx(23.8, abs=0.1)  # bfloat16
    assert lora.fitting_batch >= 1
    whole = make_plan(
        write_configuration(tmp_path, training={"parameters": "full", "ema_decay": 0.0})
    )
    name = "trained weights, gradients, optimizer"
    assert whole.memory.standing[name] == pytest.approx(16 * 11.9, rel=0.01)
    assert whole.fitting_batch == 0


def test_what_does_not_fit_says_what_lowers_it(
    large: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with_gpu(monkeypatch, "NVIDIA GeForce RTX 3090", 24.0)
    show_plan(large, "full", None, None, False)
    text = " ".join(capsys.readouterr().out.split())
    assert "It does not fit" in text
    assert "24.0 GB are there" in text
    assert "gradient_checkpointing" in text


def test_a_benchmark_of_iterations_counts_for_its_gpu_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bench = read_json(bench_folder() / "bench.json")
    write_json(tmp_path / "bench.json", bench | {"device": "cuda", "gpu": "NVIDIA H100 80GB HBM3"})
    with_gpu(monkeypatch, "NVIDIA H100 80GB HBM3", 85.5)
    assert make_plan(DEFAULT, folder=tmp_path).rates.measured
    assert not make_plan(DEFAULT, gpu="A100", folder=tmp_path).rates.measured
    assert not make_plan(DEFAULT, gpu="H100", folder=bench_folder()).rates.measured


def test_a_benchmark_of_the_same_model_and_gpu_is_used(
    large: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bench: dict[str, Any] = {
        "pipeline": "FluxPipeline",
        "size": "full",
        "transformer_parameters": 11_901_408_320,
        "gpu": "NVIDIA H100 80GB HBM3",
        "utilization": {"lora": {"rollout": 0.7, "update": 0.5, "decoder": 0.4}},
    }
    write_json(tmp_path / "bench_flux.json", bench)
    with_gpu(monkeypatch, "NVIDIA H100 80GB HBM3", 85.5, count=4)
    plan = make_plan(large, folder=tmp_path)
    assert plan.rates.measured
    assert "bench_flux.json" in plan.rates.source
    assert plan.rates.forward == pytest.approx(21.5e12 / (0.7 * 989.4e12), rel=0.01)
    assert plan.time.devices == 4
    assert not plan.assumed
    other = make_plan(large, gpu="A100", folder=tmp_path)
    assert not other.rates.measured


def test_torch_is_not_imported() -> None:
    """Whatever of the shipped configurations is planned."""
    found = sorted(DEFAULT.parent.glob("*.yaml"))
    files = [str(file) for file in found if file.name != "instrument.yaml"]
    code = (
        "import sys; from pathlib import Path; from bpgo.tools.planning.run import make_plan;"
        f"[make_plan(Path(file), gpu='H100') for file in {files}];"
        "sys.exit(any(name in sys.modules for name in ('torch', 'diffusers', 'transformers')))"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=repository_root(), capture_output=True
    )


def test_json_has_the_same_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    show_plan(DEFAULT, "smoke", None, None, True)
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads(json.dumps(as_json(make_plan(DEFAULT, "smoke"))))
    assert found["jobs"]["train"] == found["runs"] == len(config.load(DEFAULT, "smoke").runs())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"gpu": "Voodoo 2"}, "--gpu: the speed of 'Voodoo 2' is unknown. Name one of: B200"),
        ({"configfile": Path("missing.yaml")}, "missing.yaml: no such file"),
    ],
)
def test_mistakes(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as caught:
        make_plan(**({"configfile": DEFAULT} | options))
    assert words in str(caught.value)


def test_an_unknown_scale() -> None:
    with pytest.raises(UserError, match=r"--scale: 'huge' is unknown\. Allowed: full, smoke"):
        show_plan(DEFAULT, "huge", None, None, False)


def test_an_architecture_that_nothing_tells(tmp_path: Path) -> None:
    file = write_configuration(tmp_path, {"path": "someone/unheard-of"})
    with pytest.raises(UserError, match="someone/unheard-of is not on this machine"):
        make_plan(file)


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989.4e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA H200", 989.4e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA L4", 121e12),
    ],
)
def test_gpus_as_their_driver_names_them(name: str, peak: float) -> None:
    found = known_gpu(name)
    assert found is not None
    assert found.peak_flops == peak


def test_an_unknown_gpu() -> None:
    assert known_gpu("Voodoo 2") is None


def test_a_plan_is_for_people_too(capsys: pytest.CaptureFixture[str]) -> None:
    show_plan(DEFAULT, "full", None, None, False)
    text = capsys.readouterr().out
    plan: Plan = make_plan(DEFAULT)
    for words in ("242 jobs, 54 training runs", "3,110,400", "with 2 x CPU core", "bench.json"):
        assert words in text
    assert f"{plan.work.total('updates'):,}" in text
    assert "\x1b" not in text  # plain text in a pipe
