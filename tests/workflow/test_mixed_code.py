"""Runs of different code end a call before its first job, and earlier results stay."""

from __future__ import annotations

import re

import pytest
from harness import Workspace

from bpgo.config import resolve as config
from bpgo.run.code import code_of, digest_of_code
from bpgo.storage.files import write_json


@pytest.mark.parametrize(
    ("make", "option"),
    [
        ("", "snakemake ... --config allow_mixed=true"),
        ("smoke", 'make smoke SNAKEMAKE_OPTIONS="--config allow_mixed=true"'),
    ],
)
def test_collected_scores_survive_a_refusal(
    make: str, option: str, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BPGO_MAKE", make)
    settings = config.load(workspace.configfile, "smoke")
    plan = workspace.snakemake("--dry-run", "smoke")
    for line in re.findall(r"^    output: (.*)$", plan.text, flags=re.MULTILINE):
        for name in line.split(", "):
            path = workspace.path(name.split(" ")[0])
            (path if path.suffix else path / "file").parent.mkdir(parents=True, exist_ok=True)
            if path.suffix:
                path.write_text("{}")
    assert workspace.snakemake("--touch", "--forceall", "smoke").code == 0
    root = workspace.path("results/smoke")
    for run in settings.runs():
        code = code_of(settings, run) | (
            {"bpgo/core/update.py": "old"} if run.arm == "bpgo" else {}
        )
        entries = {"config_digest": settings.run_digest(run), "code": code}
        write_json(
            root / "runs" / run.folder / "manifest.json",
            entries | {"code_digest": digest_of_code(code)},
        )
    assert any(run.arm == "bpgo" for run in settings.runs())
    kept = root / "collected" / "scores.parquet"
    outcome = workspace.snakemake("smoke", "--forcerun", "collect")
    assert outcome.code != 0
    assert kept.exists()
    [error] = [line for line in outcome.text.splitlines() if line.startswith("error: ")]
    assert "bpgo/core/update.py is old" in error
    assert error.endswith(option)
    assert "Traceback" not in outcome.text


def test_a_run_of_code_edited_in_mid_call_ends_at_its_start(workspace: Workspace) -> None:
    """`collect` would refuse it too, once it is trained."""
    settings, code = workspace.path("resolved.yaml"), workspace.path("code.json")
    config.save_resolved(config.load(workspace.configfile, "smoke"), settings)
    write_json(code, {"bpgo/core/update.py": "old"})
    nothing = workspace.path("nothing")
    words = ["--experiment", "ambiguous", "--arm", "grpo", "--seed", "1", "--code", code]
    files = ["--prompts", nothing, "--calibration", nothing, "--output", nothing]
    outcome = workspace.bpgo("train", "--config", settings, *words, *files)
    assert outcome.code == 2
    [line] = outcome.text.strip().splitlines()
    assert line.startswith("error: bpgo/core/update.py was edited since this call")
    assert not nothing.exists()
