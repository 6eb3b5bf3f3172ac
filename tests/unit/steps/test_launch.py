"""The train rule's command for two GPUs, on a machine without any (gloo): slots, accelerate, us."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from calibrated import draw_calibrate_judge
from tiny_world import tiny_settings

from bpgo.config.resolve import save_resolved
from bpgo.config.runs import Run
from bpgo.run.launch import launched
from bpgo.run.progress import read_lines
from bpgo.steps import train as training
from bpgo.steps.prompts import write_prompts
from bpgo.storage.files import read_json

pytestmark = pytest.mark.slow

SHOW = """import os, pathlib, sys
names = "RANK", "WORLD_SIZE", "CUDA_VISIBLE_DEVICES", "ACCELERATE_USE_CPU", "ACCELERATE_USE_FSDP"
pathlib.Path(sys.argv[1], os.environ["RANK"]).write_text(str([os.getenv(n) for n in names]))
"""


def command(root: Path, config: Path, name: str) -> list[str]:
    """Train with two processes into `root/runs/name`."""
    words = [sys.executable, "-m", "bpgo", "train"]
    words += ["--config", str(config), "--experiment", "tiny", "--arm", "grpo"]
    words += ["--seed", "1", "--prompts", str(root / "prompts" / "train.jsonl")]
    words += ["--calibration", str(root / "calibration" / "calibration.json")]
    return launched(2, [*words, "--output", str(root / "runs" / name)])


@pytest.fixture(scope="module")
def root(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prompts, a calibration, and configurations of a short run and of a long one."""
    root = tmp_path_factory.mktemp("launch")
    settings = tiny_settings(tiny_folder)
    for split in ("train", "evaluation"):
        write_prompts(settings, split, root / "prompts" / f"{split}.jsonl")
    draw_calibrate_judge(settings, "tiny", root / "prompts" / "train.jsonl", root / "calibration")
    save_resolved(settings, root / "short.yaml")
    long = {"iterations": 500, "checkpoint_every": 500, "snapshot_every": 500}
    save_resolved(tiny_settings(tiny_folder, training=long), root / "long.yaml")
    odd = {"prompts_per_iteration": 3}
    save_resolved(tiny_settings(tiny_folder, rollout=odd), root / "odd.yaml")
    return root


@pytest.fixture(autouse=True)
def _two_cpu_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def test_two_processes_make_the_run_of_one(tiny_folder: Path, root: Path) -> None:
    done = subprocess.run(
        command(root, root / "short.yaml", "two"), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    training.train(
        tiny_settings(tiny_folder),
        Run("tiny", "grpo", 1),
        root / "prompts" / "train.jsonl",
        root / "calibration" / "calibration.json",
        root / "runs" / "one",
    )
    two, one = (root / "runs" / name for name in ("two", "one"))
    assert read_json(two / "manifest.json")["processes"] == 2
    assert {path.name for path in two.iterdir()} == {path.name for path in one.iterdir()}
    columns = ["iteration", "reward_mean", "loss", "gradient_norm", "groups_dropped"]
    ours, theirs = (pd.read_parquet(each / "metrics.parquet")[columns] for each in (two, one))
    pd.testing.assert_frame_equal(ours, theirs, rtol=1e-4, atol=1e-6)


def test_a_users_own_configuration_of_accelerate_has_no_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither its file (`accelerate config` writes it) nor its variables."""
    theirs = tmp_path / "home" / "accelerate" / "default_config.yaml"
    theirs.parent.mkdir(parents=True)
    theirs.write_text(
        "compute_environment: LOCAL_MACHINE\ndistributed_type: FSDP\ngpu_ids: 5,6\n"
        "num_machines: 4\nmachine_rank: 3\nnum_processes: 16\nuse_cpu: true\n"
        "fsdp_config: {fsdp_version: 2}\nmixed_precision: bf16\n"
    )
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    script = tmp_path / "show.py"
    script.write_text(SHOW)
    words = launched(2, [sys.executable, str(script), str(tmp_path)])
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    for rank in "01":
        seen = [rank, "2", "", None, None]
        assert (tmp_path / rank).read_text() == str(seen)
    assert not (tmp_path / "2").exists()


def test_a_signal_to_the_launcher_saves_the_state(root: Path) -> None:
    output = root / "runs" / "stopped"
    with subprocess.Popen(
        command(root, root / "long.yaml", "stopped"), stderr=subprocess.PIPE, text=True
    ) as process:
        until = time.monotonic() + 120
        while not read_lines(output / "metrics.jsonl"):
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.05)
        process.send_signal(signal.SIGUSR1)
        _, said = process.communicate(timeout=120)
    assert process.returncode != 0
    assert said.count("the same command goes on from here") == 1
    finished = read_lines(output / "metrics.jsonl")[-1]["iteration"]
    assert [path.name for path in (output / "state").glob("i*")] == [f"iteration_{finished:06d}"]


def test_a_mistake_is_told_once(root: Path) -> None:
    done = subprocess.run(
        command(root, root / "odd.yaml", "odd"), capture_output=True, text=True, timeout=300
    )
    assert done.returncode != 0
    assert done.stderr.count("error: rollout.prompts_per_iteration: 3 groups") == 1
    assert "2 processes" in done.stderr
    assert not (root / "runs" / "odd" / "manifest.json").exists()
