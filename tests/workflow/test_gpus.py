"""What jobs ask of GPUs, and how they are started on them."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from harness import Outcome, Workspace

COMMANDS = (
    *("draw", "calibrate", "judge", "train", "sample-base", "sample", "score"),
    *("harm-base", "harm"),
)
JOB = r"python -S -m bpgo\.run\.job --gpus (\d+) --benchmark \S+ python -m bpgo"


def gpus_of(text: str) -> dict[str, set[str]]:
    """On how many GPUs each command of `bpgo` is started."""
    found: dict[str, set[str]] = {}
    start = rf"^Shell command: {JOB} ({'|'.join(COMMANDS)}) --config"
    for gpus, name in re.findall(start, text, flags=re.MULTILINE):
        found.setdefault(name, set()).add(gpus)
    return found


def test_the_default_uses_no_gpu(plans: dict[str, Outcome]) -> None:
    plan = plans["smoke"]
    assert gpus_of(plan.text) == {name: {"0"} for name in COMMANDS}
    assert not re.search(r"resources: .*gpu=[1-9]", plan.text)


def test_one_gpu_for_each_job(workspace: Workspace) -> None:
    workspace.edit(lambda values: values.update(machine={"gpus": 1}))
    plan = workspace.snakemake("--dry-run", "smoke")
    assert gpus_of(plan.text) == {name: {"1"} for name in COMMANDS}


def test_several_gpus_are_for_training(workspace: Workspace) -> None:
    workspace.edit(lambda values: values.update(machine={"gpus": 4}))
    plan = workspace.snakemake("--dry-run", "smoke", "--resources", "gpu=8")
    assert gpus_of(plan.text) == {name: {"4" if name == "train" else "1"} for name in COMMANDS}
    assert re.search(r"resources: .*gpu=4", plan.text)


def test_more_gpus_than_snakemake_may_use(workspace: Workspace) -> None:
    """Snakemake would quietly start the job with fewer."""
    workspace.edit(lambda values: values.update(machine={"gpus": 2}))
    plan = workspace.snakemake("--dry-run", "smoke")
    assert plan.code != 0
    assert "machine.gpus: a training run asks for 2 GPUs, but Snakemake may use 1" in plan.text
    assert "--resources gpu=2" in plan.text


def nvidia_smi(folder: Path, mebibytes: int) -> Path:
    """A driver's program that tells of one GPU of this size."""
    folder.mkdir()
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\necho '0, GPU-1, Made Up 1, {mebibytes}, 580.65.06'\n")
    program.chmod(0o755)
    return folder


def with_a_lagging_policy(workspace: Workspace) -> Workspace:
    """FLUX.1-dev, all weights trained, by an arm that keeps two further policies."""
    other = workspace.with_config("flux_t2i")

    def change(values: dict[str, Any]) -> None:
        values["training"]["parameters"] = "full"
        values["experiments"]["hpsv2"]["arms"] = ["grpo", "diffusion_nft"]
        values["smoke"]["experiments"]["hpsv2"]["arms"] = ["grpo", "diffusion_nft"]

    other.edit(change, "flux_t2i")
    return other


def test_further_policies_that_do_not_fit_the_gpu(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One message before the first job; a larger GPU, or a cluster's, is another matter."""
    workspace = with_a_lagging_policy(workspace)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(nvidia_smi(tmp_path / "small", 300_000)), prepend=os.pathsep)
    plan = workspace.snakemake("--dry-run", "smoke")
    assert plan.code != 0
    assert plan.text.count("arms.diffusion_nft keeps old (47.6 GB), base (47.6 GB)") == 1
    assert "Made Up 1 with 315 GB" in plan.text
    assert "training.parameters: lora" in plan.text
    monkeypatch.setenv("PATH", str(nvidia_smi(tmp_path / "large", 600_000)), prepend=os.pathsep)
    assert workspace.snakemake("--dry-run", "smoke").code == 0
