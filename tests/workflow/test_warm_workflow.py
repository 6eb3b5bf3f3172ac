"""A workflow whose jobs are forked makes the same files as one whose jobs start by themselves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from harness import REPOSITORY, TIMEOUT, digests, workspace_in
from snakemake.benchmark import BenchmarkRecord

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="the server needs Linux"),
]
ROOT = "results/smoke"
# What tells of times, or of the machine's processes.
TIMES = ("benchmarks", "logs", "convergence", "cost", "claims", "runs.json", "tensorboard", ".lock")
TIMES = (*TIMES, "manifest.json", "metrics", "training.parquet", "index.html")


def shrink(values: dict[str, Any]) -> None:
    """One experiment, one arm, one seed, few of everything: a cold job imports for seconds."""
    smoke = values["smoke"]
    values["experiments"] = {"ambiguous": values["experiments"]["ambiguous"]}
    smoke["experiments"] = {"ambiguous": {"arms": ["grpo"], "seeds": [1]}}
    del values["sweeps"], smoke["sweeps"]
    values["rollout"].update(prompts_per_iteration=4, group_size=4)
    smoke["training"].update(iterations=2, snapshot_every=1, checkpoint_every=1)
    smoke["evaluation"].update(prompts=8, curve_prompts=4)
    smoke["calibration"].update(prompts=8, samples_per_prompt=4)
    smoke["analysis"].update(bootstrap_samples=50)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The results of a workflow, warm and cold, and where both keep temporary files."""
    found = {}
    for warm in ("true", "false"):
        workspace = workspace_in(tmp_path_factory.mktemp(warm))
        workspace.edit(shrink)
        temporary = workspace.path("temporary")
        temporary.mkdir()
        command = [sys.executable, "-m", "snakemake", "--config", f"warm={warm}", "--configfile"]
        command += [str(workspace.configfile), "--directory", str(workspace.folder)]
        command += ["--default-resources", f"tmpdir='{temporary}'", "--cores", "2", "--", "smoke"]
        outcome = subprocess.run(
            ["env", f"TMPDIR={temporary}", *command],
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        assert outcome.returncode == 0, outcome.stdout
        found[warm] = workspace.folder
    return found


def test_files_are_equal_to_the_byte(made: dict[str, Path]) -> None:
    warm, cold = (
        {
            name: digest
            for name, digest in digests(made[kind] / ROOT).items()
            if not any(part in name for part in TIMES)
        }
        for kind in ("true", "false")
    )
    assert warm == cold
    for part in ("samples/", "scores/", "statistics/", "tables/", "figures/", "runs/", "grids/"):
        assert any(name.startswith(part) for name in warm)


def test_jobs_were_forked_and_say_what_they_say_otherwise(made: dict[str, Path]) -> None:
    """No import shows in a warm job's processor seconds."""

    def logs(kind: str) -> list[str]:
        return sorted(str(log.relative_to(made[kind])) for log in made[kind].rglob("*.log"))

    assert [log for log in logs("true") if ROOT in log] == [
        log for log in logs("false") if ROOT in log
    ]
    for kind in ("true", "false"):
        for log in (made[kind] / ROOT / "logs").rglob("*.log"):
            assert "warm" not in log.read_text()
    taken = {kind: [scoring(file) for file in scorings(made[kind])] for kind in ("true", "false")}
    assert max(taken["true"]) < min(taken["false"])


def scorings(folder: Path) -> list[Path]:
    found = sorted((folder / ROOT / "benchmarks" / "score").rglob("*.tsv"))
    assert len(found) == 2
    return found


def scoring(file: Path) -> float:
    head, row = [line.split("\t") for line in file.read_text().splitlines()]
    assert head == BenchmarkRecord.get_header()
    return float(dict(zip(head, row, strict=True))["cpu_time"])


def test_nothing_of_it_is_left(made: dict[str, Path]) -> None:
    for folder in made.values():
        assert not list((folder / "temporary").glob("bpgo-*"))
    running = [
        process
        for process in Path("/proc").glob("[0-9]*")
        if str(made["true"]) in environment(process)
    ]
    assert not running


def environment(process: Path) -> str:
    try:
        return (process / "environ").read_bytes().decode(errors="replace")
    except OSError:
        return ""
