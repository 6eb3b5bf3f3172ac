"""What jobs ask of GPUs, and how they are started on them."""

from __future__ import annotations

import re

from harness import Outcome, Workspace

COMMANDS = ("calibrate", "train", "sample", "score")


def commands(text: str) -> dict[str, set[str]]:
    """How each command of `bpgo` is started."""
    found: dict[str, set[str]] = {}
    for start, name in re.findall(
        r"^Shell command: (.*?python.*?) (train|sample|score|calibrate) --config",
        text,
        flags=re.MULTILINE,
    ):
        found.setdefault(name, set()).add(start)
    return found


def test_the_default_uses_no_gpu(plans: dict[str, Outcome]) -> None:
    plan = plans["smoke"]
    assert commands(plan.text) == {name: {"python -m bpgo"} for name in COMMANDS}
    assert not re.search(r"resources: .*gpu=[1-9]", plan.text)


def test_one_gpu_for_each_job(workspace: Workspace) -> None:
    workspace.edit(lambda values: values.update(machine={"gpus": 1}))
    plan = workspace.snakemake("--dry-run", "smoke")
    start = "python -m bpgo.run.slots 1 python -m bpgo"
    assert commands(plan.text) == {name: {start} for name in COMMANDS}


def test_several_gpus_are_for_training(workspace: Workspace) -> None:
    workspace.edit(lambda values: values.update(machine={"gpus": 4}))
    plan = workspace.snakemake("--dry-run", "smoke", "--resources", "gpu=8")
    starts = commands(plan.text)
    assert starts["sample"] == {"python -m bpgo.run.slots 1 python -m bpgo"}
    (train,) = starts["train"]
    assert train.startswith("python -m bpgo.run.slots 4 python -m accelerate.commands.launch ")
    assert "--num_processes 4" in train
    assert train.endswith(" -m bpgo")
    assert re.search(r"resources: .*gpu=4", plan.text)


def test_more_gpus_than_snakemake_may_use(workspace: Workspace) -> None:
    """Snakemake would quietly start the job with fewer."""
    workspace.edit(lambda values: values.update(machine={"gpus": 2}))
    plan = workspace.snakemake("--dry-run", "smoke")
    assert plan.code != 0
    assert "machine.gpus: a training run asks for 2 GPUs, but Snakemake may use 1" in plan.text
    assert "--resources gpu=2" in plan.text
