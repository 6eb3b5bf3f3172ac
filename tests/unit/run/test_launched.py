"""How a job's command becomes one on GPUs of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bpgo.run.launch import ACCELERATE, launched
from bpgo.storage.files import repository_root

COMMAND = ["python", "-m", "bpgo", "train", "--seed", "1"]
SHOW = "import sys; print(sys.orig_argv[1:])"


def test_without_gpus_it_stays_as_it_is() -> None:
    assert launched(0, COMMAND) == COMMAND


def test_one_gpu_is_taken_by_the_command() -> None:
    assert launched(1, COMMAND) == ["python", "-m", "bpgo.run.slots", "1", *COMMAND]


def test_several_gpus_get_a_process_each() -> None:
    words = launched(4, COMMAND)
    launcher = ["python", "-m", "accelerate.commands.launch", "--config_file", ACCELERATE]
    assert words[:9] == ["python", "-m", "bpgo.run.slots", "4", *launcher]
    assert words[words.index("--num_processes") + 1] == "4"
    assert words[-len(COMMAND) + 1 :] == COMMAND[1:]


def test_our_own_configuration_of_accelerate_is_there() -> None:
    assert Path(ACCELERATE) == repository_root() / "workflow" / "accelerate.yaml"
    assert Path(ACCELERATE).is_file()


@pytest.mark.parametrize("options", [[], ["--gpus", "0"], ["--gpus", "1"]])
def test_a_job_starts_so(options: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without GPUs on the machine `bpgo.run.slots` becomes the command at once."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    job = [sys.executable, "-S", "-m", "bpgo.run.job", *options]
    done = subprocess.run(
        [*job, sys.executable, "-c", SHOW], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == str(["-c", SHOW])
