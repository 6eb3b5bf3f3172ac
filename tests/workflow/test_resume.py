"""A training command that is killed or stopped goes on, and ends as if nothing had happened."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from harness import REPOSITORY, TIMEOUT, Workspace, digests, workspace_in

from bpgo.run.warm.folder import close_folder, open_folder

pytestmark = pytest.mark.slow
TIMES = ["seconds", "rollout_seconds", "reward_seconds", "update_seconds"]
ITERATIONS, CHECKPOINT_EVERY = 6, 2


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Prompts and calibration of a small configuration, and one run without interruption."""
    workspace = workspace_in(tmp_path_factory.mktemp("resume"))

    def shrink(values: dict) -> None:
        values["training"].update(
            iterations=ITERATIONS, snapshot_every=4, checkpoint_every=CHECKPOINT_EVERY
        )
        values["rollout"].update(prompts_per_iteration=4, group_size=4)
        values["analysis"].update(final_stages=1)
        values["calibration"].update(prompts=8, samples_per_prompt=4)

    workspace.edit(shrink)
    folder = ["--output", workspace.path("calibration")]
    config, prompts = workspace.path("resolved.yaml"), workspace.path("prompts/train.jsonl")
    draws = workspace.path("draws/draws.json")
    given = ["--config", config, "--prompts", prompts]
    for command in (
        ["resolve", "--configfile", workspace.configfile, "--output", config],
        ["prompts", "--config", config, "--split", "train", "--output", prompts],
        ["draw", *given, "--sampler", "dance_1p6_2", "--output", draws],
        ["calibrate", *given, "--experiment", "ambiguous", "--draws", draws, *folder],
        train_command(workspace, "whole"),
    ):
        outcome = workspace.bpgo(*command)
        assert outcome.code == 0, outcome.text
    return workspace


def train_command(workspace: Workspace, run: str) -> list[str | Path]:
    """Train BPGO, whose prior is a part of the state, in the folder `runs/{run}`."""
    command: list[str | Path] = ["train", "--config", workspace.path("resolved.yaml")]
    command += ["--experiment", "ambiguous", "--arm", "bpgo", "--seed", "1"]
    command += ["--prompts", workspace.path("prompts/train.jsonl")]
    command += ["--calibration", workspace.path("calibration/calibration.json")]
    return [*command, "--output", workspace.path(f"runs/{run}")]


@pytest.fixture
def warm() -> Iterator[list[str]]:
    """What starts a job that a server forks, as in a workflow."""
    open_folder(["flux"])
    yield [sys.executable, "-S", "-m", "bpgo.run.job", "python", "-m", "bpgo"]
    close_folder()


COLD = [sys.executable, "-m", "bpgo"]


def interrupted(
    workspace: Workspace, run: str, number: signal.Signals, start: list[str] = COLD
) -> tuple[int, str]:
    """Start the run and send it a signal once it has its first checkpoint."""
    command = [*start, *map(str, train_command(workspace, run))]
    state = workspace.path(f"runs/{run}/state/iteration_{CHECKPOINT_EVERY:06d}")
    with subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        deadline = time.monotonic() + TIMEOUT
        while not state.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(number)
        text, _ = process.communicate(timeout=TIMEOUT)
    return process.returncode, text


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "stopped"])
@pytest.mark.parametrize("kind", ["cold", "warm"])
def test_resumed_run_equals_an_uninterrupted_one(
    prepared: Workspace, number: signal.Signals, kind: str, request: pytest.FixtureRequest
) -> None:
    run = f"{kind}_{number.name.lower()}"
    start = COLD if kind == "cold" else request.getfixturevalue("warm")
    code, text = interrupted(prepared, run, number, start)
    assert code == (75 if number == signal.SIGTERM else -number), text
    assert not prepared.path(f"runs/{run}/manifest.json").exists()
    if number == signal.SIGTERM:
        assert "the same command goes on from here" in text
        assert "Traceback" not in text
    outcome = prepared.bpgo(*train_command(prepared, run))
    assert outcome.code == 0, outcome.text
    assert "resumed after iteration" in outcome.text
    whole, resumed = prepared.path("runs/whole"), prepared.path(f"runs/{run}")
    for part in ("policy", "snapshots"):
        assert digests(resumed / part) == digests(whole / part)
    for name in ("metrics", "rollouts"):
        found, expected = (
            pd.read_parquet(folder / f"{name}.parquet") for folder in (resumed, whole)
        )
        pd.testing.assert_frame_equal(
            found.drop(columns=TIMES, errors="ignore"),
            expected.drop(columns=TIMES, errors="ignore"),
            check_exact=True,
        )


def by_snakemake(prepared: Workspace) -> list[str]:
    """Snakemake's call that trains the run anew, beside the prompts and the calibration."""
    root = prepared.path("results")
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(prepared.path("prompts"), root / "prompts")
    shutil.copytree(prepared.path("calibration"), root / "calibration" / "ambiguous")
    command = [sys.executable, "-m", "snakemake", "--configfile", str(prepared.configfile)]
    command += ["--directory", str(prepared.folder), "--cores", "1", "--"]
    return [*command, "results/runs/ambiguous/bpgo/seed_1/manifest.json"]


def first_state(process: subprocess.Popen, run: Path) -> int:
    """Wait for the run's first checkpoint: the process that trains it."""
    while not list(run.glob("state/iteration_*[0-9]")):
        assert process.poll() is None
        time.sleep(0.01)
    return int((run / ".lock").read_text())


def test_what_ends_after_snakemake_alone_was_told_to_stop_is_not_done_again(
    prepared: Workspace,
) -> None:
    command, run = by_snakemake(prepared), prepared.path("results/runs/ambiguous/bpgo/seed_1")
    with subprocess.Popen(
        command, cwd=REPOSITORY, stdin=subprocess.DEVNULL, start_new_session=True
    ) as process:
        try:
            first_state(process, run)
            process.send_signal(signal.SIGHUP)  # Ctrl-C is heard by the same handler
            assert process.wait(TIMEOUT) != 0
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    assert (run / "manifest.json").exists()
    command.insert(command.index("--"), "--dry-run")
    again = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert "Nothing to be done" in again.stdout + again.stderr, again.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_job_told_to_stop_lasts_as_long_as_its_command(
    prepared: Workspace, number: signal.Signals
) -> None:
    """As clusters and terminals do it: the signal to every process of the job at once."""
    root, run = prepared.path("results"), prepared.path("results/runs/ambiguous/bpgo/seed_1")
    with subprocess.Popen(
        by_snakemake(prepared),
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            training = first_state(process, run)
            os.kill(training, signal.SIGSTOP)  # an iteration that takes long
            os.killpg(process.pid, number)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(5)
            os.kill(training, signal.SIGCONT)
            assert process.wait(TIMEOUT) != 0
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    log = root / "logs/train/ambiguous/bpgo/seed_1.log"
    assert "the state is saved" in log.read_text()
    assert not list(prepared.path(".snakemake").glob("locks/*"))  # the same command goes on
    assert not (run / "manifest.json").exists()


def test_a_run_of_other_settings_is_not_resumed(prepared: Workspace) -> None:
    code, text = interrupted(prepared, "other", signal.SIGKILL)
    assert code != 0, text
    resolved = prepared.path("resolved.yaml")
    kept = resolved.read_text()
    resolved.write_text(re.sub(r"learning_rate: .*", "learning_rate: 0.0009", kept))
    try:
        assert resolved.read_text() != kept
        outcome = prepared.bpgo(*train_command(prepared, "other"))
    finally:
        resolved.write_text(kept)
    assert outcome.code == 2, outcome.text
    assert "belongs to another configuration" in outcome.text
    assert not prepared.path("runs/other/policy").exists()
