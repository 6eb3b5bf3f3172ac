"""The cluster profiles on a real Slurm: one node, two GPUs that are none.

BPGO_SLURM_TOOLS names a folder with `start_slurm.sh STATE GPUS` and `stop_slurm.sh STATE`. Starting
Slurm installs its packages and writes /etc/slurm, so nobody gets it unasked.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest
import yaml
from harness import REPOSITORY, Outcome, Workspace, digests, run, workspace_in

pytestmark = pytest.mark.slow
CONFIGURATION = Path("/etc/slurm/slurm.conf")  # where start_slurm.sh writes it
LIMIT = 1800  # seconds for one call of Snakemake; generous, for a machine with other work
ROOT = "results/smoke"
ARMS = ("grpo", "bpgo")
QUICK = ["--seconds-between-status-checks", "2"]
QUICK_SLURM = [*QUICK, "--slurm-init-seconds-before-status-checks", "1"]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A Slurm whose jobs share the cores, so that only a lack of GPUs makes a job wait."""
    tools = os.environ.get("BPGO_SLURM_TOOLS")
    if not tools:
        pytest.skip("BPGO_SLURM_TOOLS names no folder with start_slurm.sh and stop_slurm.sh")
    if os.geteuid() != 0:
        pytest.skip("only root can start Slurm")
    if shutil.which("sinfo") and run(["sinfo"]).code == 0:
        pytest.skip("a Slurm runs here already; it is left alone")
    if CONFIGURATION.exists():
        pytest.skip(f"{CONFIGURATION} is there: another Slurm's, or left by a killed test")
    state = tempfile.mkdtemp(prefix="slurm-")  # short: it holds sockets
    try:
        # nproc, which says how many cores the node has, heeds OMP_NUM_THREADS.
        command = ["env", "--unset=OMP_NUM_THREADS", "timeout", "-k", "10", "300"]
        start = run([*command, f"{tools}/start_slurm.sh", state, "2"])
        if start.code != 0:
            pytest.skip(f"Slurm cannot be started: {start.text[-500:]}")
        remember_jobs()
        [partition] = scheduler("sinfo", "--noheader", "--format=%R")
        scheduler("scontrol", "update", f"PartitionName={partition}", "OverSubscribe=FORCE:8")
        yield
    finally:
        run(["timeout", "-k", "10", "60", f"{tools}/stop_slurm.sh", state])
        shutil.rmtree(state, ignore_errors=True)
        end_processes_in(tmp_path_factory.getbasetemp())
        # With it, every start of Snakemake would wait nine seconds for the stopped controller.
        CONFIGURATION.unlink(missing_ok=True)


def remember_jobs() -> None:
    """The test looks at finished jobs when all are; on a busy machine that takes long."""
    kept = re.sub(r"^MinJobAge=.*\n", "", CONFIGURATION.read_text(), flags=re.MULTILINE)
    CONFIGURATION.write_text(f"{kept}\nMinJobAge={2 * LIMIT}\n")
    scheduler("scontrol", "reconfigure")


def end_processes_in(folder: Path) -> None:
    """Kill what a cut-off job left: without cgroups this Slurm cannot, as a cluster's does."""
    for place in Path("/proc").glob("[0-9]*/cwd"):
        with suppress(OSError):
            if place.readlink().is_relative_to(folder):
                os.kill(int(place.parent.name), signal.SIGKILL)


def scheduler(*command: str) -> list[str]:
    """The lines that a command of Slurm prints."""
    outcome = run(["timeout", "-k", "5", "30", *command])
    assert outcome.code == 0, outcome.text
    return outcome.text.splitlines()


@dataclass(frozen=True)
class Job:
    """A line of squeue; the executors name jobs after their rule, one of them in the comment."""

    number: str
    name: str
    state: str
    reason: str


def jobs(name: str, *options: str) -> list[Job]:
    """The jobs whose name or comment contains this."""
    lines = scheduler("squeue", "--noheader", "--format=%i|%j %k|%T|%r", *options)
    found = [Job(*line.split("|")) for line in lines]
    return [job for job in found if name in job.name]


@contextmanager
def started(workspace: Workspace, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Snakemake in the background, its output in `snakemake.log`; it does not outlive the test."""
    command = ["timeout", "-k", "10", str(LIMIT), sys.executable, "-m", "snakemake"]
    command += ["--configfile", str(workspace.configfile), "--directory", str(workspace.folder)]
    with (
        workspace.path("snakemake.log").open("wb") as log,
        subprocess.Popen(
            [*command, *arguments],
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process,
    ):
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def ended(workspace: Workspace, process: subprocess.Popen[bytes]) -> Outcome:
    """Wait for its end."""
    code = process.wait(LIMIT + 60)
    return Outcome(code, workspace.path("snakemake.log").read_text())


Found = TypeVar("Found")


def wait_for(
    find: Callable[[], Found], workspace: Workspace, process: subprocess.Popen[bytes]
) -> Found:
    """What is found, as soon as it is true; Snakemake must not end before."""
    while process.poll() is None:
        if found := find():
            return found
        time.sleep(0.2)
    raise AssertionError(workspace.path("snakemake.log").read_text())


def hold_gpus(number: int, workspace: Workspace) -> str:
    """A job of somebody else that takes GPUs, and writes into `held` which ones."""
    file = workspace.path("held")
    script = f'echo "$CUDA_VISIBLE_DEVICES" > {file}.part; mv {file}.part {file}; exec sleep 3600'
    options = [f"--gpus={number}", "--mem=10", "--output=/dev/null", f"--wrap={script}"]
    [job] = scheduler("sbatch", "--parsable", *options)
    deadline = time.monotonic() + 60
    while not file.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert file.exists(), "the job that takes the GPUs did not start"
    return job


def visible_devices(arm: str, workspace: Workspace) -> str | None:
    """CUDA_VISIBLE_DEVICES of the process that trains this arm in this workspace."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_text().split("\0")
            here = (folder / "cwd").resolve() == workspace.folder.resolve()
            values = (folder / "environ").read_text().split("\0")
        except OSError:  # it has just ended, or is a thread of the kernel
            continue
        if here and words[1:4] == ["-m", "bpgo", "train"] and arm in words:
            return dict(value.partition("=")[::2] for value in values).get("CUDA_VISIBLE_DEVICES")
    return None


def shrink(values: dict) -> None:
    """One experiment, two arms, one seed, few of everything."""
    smoke = values["smoke"]
    values["experiments"] = {"ambiguous": values["experiments"]["ambiguous"]}
    smoke["experiments"] = {"ambiguous": {"arms": list(ARMS), "seeds": [1]}}
    del values["sweeps"], smoke["sweeps"]
    values["rollout"].update(prompts_per_iteration=4, group_size=4)
    smoke["training"].update(iterations=16, snapshot_every=8, checkpoint_every=1)
    smoke["evaluation"].update(prompts=8, curve_prompts=4)
    smoke["calibration"].update(prompts=8, samples_per_prompt=4)
    smoke["analysis"].update(bootstrap_samples=50)


def profile_of_a_site(workspace: Workspace) -> Path:
    """The Slurm profile, but training asks for a GPU, and jobs for little memory."""
    values = yaml.safe_load((REPOSITORY / "profiles" / "slurm" / "config.yaml").read_text())
    values["default-resources"]["mem_mb"] = 1000
    values["set-resources"]["train"].update(gpu=1, cpus_per_gpu=1)
    folder = workspace.path("profile")
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(values))
    return folder


@dataclass(frozen=True)
class Campaign:
    """The smoke DAG on Slurm, and what was seen on the way."""

    workspace: Workspace
    outcome: Outcome
    trainings: list[Job]  # while another job held one of the two GPUs
    held_device: str
    used_device: str | None
    submitted: list[Job]


@pytest.fixture(scope="module")
def campaign(slurm: None, tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    """Another job holds a GPU at first; one training is requeued, the other one cancelled."""
    workspace = workspace_in(tmp_path_factory.mktemp("slurm"))
    workspace.edit(shrink)
    holder = hold_gpus(1, workspace)
    arguments = ["--workflow-profile", str(profile_of_a_site(workspace)), *QUICK_SLURM]
    with started(workspace, *arguments, "--", "smoke") as process:

        def one_waits() -> list[Job]:
            found = sorted(jobs("rule_train"), key=lambda job: job.state)
            decided = [job.reason for job in found] == ["Resources", "None"]
            return found if decided and found[1].state == "RUNNING" else []

        def has_state(job: Job) -> bool:
            folder = workspace.path(f"{ROOT}/runs/ambiguous/{arm_of(job)}/seed_1/state")
            return any(folder.glob("iteration_[0-9]*[0-9]"))

        def is_requeued() -> bool:
            return scheduler("squeue", "--noheader", "--format=%T", "-j", first.number) == [
                "PENDING"
            ]

        trainings = second, first = wait_for(one_waits, workspace, process)
        wait_for(lambda: has_state(first), workspace, process)
        device = visible_devices(arm_of(first), workspace)
        scheduler("scontrol", "requeue", first.number)
        wait_for(is_requeued, workspace, process)
        # Slurm holds a requeued job back for two minutes.
        scheduler("scontrol", "update", f"JobId={first.number}", "StartTime=now")
        scheduler("scancel", holder)
        wait_for(lambda: has_state(second), workspace, process)
        scheduler("scancel", second.number)
        outcome = ended(workspace, process)
    held = workspace.path("held").read_text().strip()
    return Campaign(workspace, outcome, trainings, held, device, jobs("rule_", "--states=all"))


def arm_of(job: Job) -> str:
    """The arm that a job trains."""
    return re.search(r"ambiguous_(\w+)_1$", job.name)[1]


@pytest.mark.parametrize("name", ["slurm", "cluster_generic"])
def test_cluster_profile_takes_the_place_of_the_default(name: str) -> None:
    default, cluster = (
        yaml.safe_load((REPOSITORY / "profiles" / folder / "config.yaml").read_text())
        for folder in ("default", name)
    )
    assert "resources" not in cluster, "Slurm shares out the GPUs"
    for key in default.keys() - {"resources", "keep-going"}:
        assert cluster[key] == default[key]


def test_cluster_profile_beside_the_default_is_refused(workspace: Workspace) -> None:
    outcome = workspace.snakemake("--dry-run", "--profile", "profiles/slurm")
    assert outcome.code != 0
    assert "Give the cluster's profile as --workflow-profile" in outcome.text
    outcome = workspace.snakemake("--dry-run", "--workflow-profile", "profiles/slurm")
    assert outcome.code == 0, outcome.text


def test_every_job_goes_through_slurm(campaign: Campaign) -> None:
    outcome = campaign.outcome
    assert outcome.code == 0, outcome.text
    assert campaign.workspace.path(f"{ROOT}/report/index.html").stat().st_size > 10_000
    rules = [re.search(r"(?:rule|group)_([a-z]+)", job.name)[1] for job in campaign.submitted]
    base_and_arms = 1 + len(ARMS)
    assert {rule: rules.count(rule) for rule in rules} == {
        "prompts": 2,
        "draw": 1,
        "calibrate": 1,
        "judge": 1,
        "train": len(ARMS) + 1,  # the cancelled one twice
        "sample": base_and_arms,
        "score": base_and_arms,
        "harm": base_and_arms,
        "analysis": 1,
    }
    ends = [job.state for job in campaign.submitted]
    assert sorted(set(ends)) == ["CANCELLED", "COMPLETED"]
    assert ends.count("CANCELLED") == 1


def test_two_gpu_jobs_run_and_a_third_waits(campaign: Campaign) -> None:
    waiting, running = campaign.trainings
    assert (waiting.state, waiting.reason) == ("PENDING", "Resources")
    assert running.state == "RUNNING"
    assert {campaign.held_device, campaign.used_device} == {"0", "1"}


@pytest.mark.parametrize("which", [1, 0], ids=["requeued", "cancelled"])
def test_training_that_was_cut_off_equals_an_undisturbed_one(
    campaign: Campaign, which: int, tmp_path: Path
) -> None:
    workspace, arm = campaign.workspace, arm_of(campaign.trainings[which])
    log = workspace.path(f"{ROOT}/logs/train/ambiguous/{arm}/seed_1.log").read_text()
    assert "resumed after iteration" in log, log
    root = workspace.path(ROOT)
    [config] = root.glob("config/*.yaml")
    command: list[str | Path] = ["train", "--config", config, "--experiment", "ambiguous"]
    command += ["--arm", arm, "--seed", "1", "--prompts", root / "prompts/train.jsonl"]
    command += ["--calibration", root / "calibration/ambiguous/calibration.json"]
    undisturbed = workspace.bpgo(*command, "--output", tmp_path)
    assert undisturbed.code == 0, undisturbed.text
    assert "resumed" not in undisturbed.text
    for part in ("policy", "snapshots"):
        found = digests(root / f"runs/ambiguous/{arm}/seed_1" / part)
        assert found == digests(tmp_path / part)


def test_generic_profile_submits_and_notices_a_cancelled_job(
    slurm: None, workspace: Workspace
) -> None:
    target = f"{ROOT}/prompts/evaluation.jsonl"
    holder = hold_gpus(2, workspace)
    arguments = ["--workflow-profile", str(REPOSITORY / "profiles" / "cluster_generic"), *QUICK]
    resources = ["--default-resources", "runtime=10", "mem_mb=1000", "gpu=1"]
    with started(workspace, *arguments, *resources, "--", target) as process:
        [job] = wait_for(lambda: jobs("prompts"), workspace, process)
        assert job.state == "PENDING"
        scheduler("scancel", job.number)
        [again] = wait_for(
            lambda: [found for found in jobs("prompts") if found.number != job.number],
            workspace,
            process,
        )
        scheduler("scancel", holder)
        outcome = ended(workspace, process)
    assert outcome.code == 0, outcome.text
    assert again.number != job.number
    assert workspace.path(target).exists()
