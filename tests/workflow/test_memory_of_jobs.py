"""Jobs without a GPU start with the allocator's settings, and with a user's own."""

from __future__ import annotations

import shlex
import sys

import pytest
from harness import Workspace, run_forked

from bpgo.run.allocator import NAME, allocator_variables
from bpgo.storage.files import write_text


def environment_of_a_job(workspace: Workspace) -> str:
    """The variable in a job that writes prompts."""
    python, seen = workspace.path("bin") / "python", workspace.path("seen")
    write_text(
        python,
        f'#!/bin/sh\nprintf %s "${NAME}" > {shlex.quote(str(seen))}\n'
        f'exec {shlex.quote(sys.executable)} "$@"\n',
    )
    python.chmod(0o755)
    place = ["--configfile", str(workspace.configfile), "--directory", str(workspace.folder)]
    call = [*place, "--cores", "1", "results/prompts/train.jsonl"]
    outcome = run_forked("snakemake", call, executable=str(python))
    assert outcome.code == 0, outcome.text
    reason = allocator_variables({})[1]
    assert outcome.text.count("allocator settings") == bool(reason)
    return seen.read_text()


@pytest.mark.parametrize("own", ["", "glibc.malloc.trim_threshold=4000"])
def test_jobs_have_the_settings_and_a_users_own(
    own: str, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(NAME, own)
    expected = allocator_variables({NAME: own})[0].get(NAME, own)
    assert environment_of_a_job(workspace) == expected
    assert own in expected


def test_jobs_beside_a_gpu_have_none(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(NAME, raising=False)
    workspace.edit(lambda values: values.update(machine={"gpus": 1}))
    assert environment_of_a_job(workspace) == ""
