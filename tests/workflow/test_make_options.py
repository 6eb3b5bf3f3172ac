"""Options for Snakemake reach it from `make` beside the target."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys

import pytest
from harness import REPOSITORY, Workspace, run


def called(target: str, options: str) -> list[str]:
    """The words of the one call of Snakemake that `make` would make."""
    words = ["make", "-n", "VENV=none", "-o", "none/.main", target]
    done = subprocess.run(
        [*words, f"SNAKEMAKE_OPTIONS={options}"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "results" not in done.stdout, "only Snakemake knows the folder of the results"
    [call] = [line for line in done.stdout.splitlines() if "/snakemake " in line]
    return shlex.split(call)[1:]


@pytest.mark.parametrize("target", ["smoke", "video", "figures", "reference", "bench", "pretrain"])
def test_a_configuration_does_not_swallow_the_target(target: str) -> None:
    words = called(target, "--configfile a.yaml b.yaml")
    assert words[0] == target
    assert words[words.index("--configfile") + 1 :] == ["a.yaml", "b.yaml"]


@pytest.mark.parametrize("home", ["/nowhere/at/all", "/dev/null", None])
def test_without_a_home_folder_snakemake_has_a_cache(home: str | None) -> None:
    """It makes one below the home folder, before it reads the workflow."""
    place = {name: value for name, value in os.environ.items() if name != "XDG_CACHE_HOME"}
    place.pop("HOME")
    words = ["make", "-s", "--eval", "shown: ; @echo $$XDG_CACHE_HOME", "shown"]
    found = {
        here: subprocess.run(
            words,
            cwd=REPOSITORY,
            env=place | ({} if here is None else {"HOME": here}),
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for here in (home, str(REPOSITORY))
    }
    assert found == {home: str(REPOSITORY / ".snakemake" / "cache"), str(REPOSITORY): ""}


@pytest.mark.skipif(sys.platform != "linux", reason="asks for a folder that nobody can make")
def test_by_hand_snakemake_needs_no_more_than_that_cache(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As docs/machines.md says."""
    monkeypatch.setenv("HOME", "/proc/1")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    words = ["--configfile", str(workspace.configfile), "--directory", str(workspace.folder)]
    call = [sys.executable, "-m", "snakemake", *words, "--cores", "1", "--dry-run"]
    refused = run(call)
    assert refused.code != 0
    assert "/proc/1/.cache" in refused.text
    monkeypatch.setenv("XDG_CACHE_HOME", str(workspace.path("cache")))
    assert run(call).code == 0


def test_results_has_no_target() -> None:
    assert called("results", "--configfile a.yaml") == ["--cores", "all", "--configfile", "a.yaml"]
