"""One set of pins: pyproject.toml, constraints.txt, environment.yml and workflow/envs agree."""

from __future__ import annotations

import os
import re
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from harness import REPOSITORY, Workspace, run
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ENVIRONMENT = {"python_version": "3.11", "python_full_version": "3.11.9"}


def project() -> dict[str, list[Requirement]]:
    """The requirements of pyproject.toml by group: `main` and the optional ones."""
    values = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    lists = {"main": values["dependencies"], **values["optional-dependencies"]}
    return {name: [Requirement(line) for line in lines] for name, lines in lists.items()}


def constraints() -> dict[str, str]:
    """Package to version, for Python 3.11 on the machine at hand."""
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    found = [Requirement(line) for line in lines]
    chosen = [r for r in found if r.marker is None or r.marker.evaluate(ENVIRONMENT)]
    return {canonicalize_name(r.name): pinned(r) for r in chosen}


def pinned(requirement: Requirement) -> str:
    """The version of `name==version`."""
    [specifier] = requirement.specifier
    assert specifier.operator == "==", f"{requirement} is not pinned"
    return specifier.version


def conda_pins(file: str) -> dict[str, str]:
    """The pip section of a conda environment file."""
    dependencies = yaml.safe_load((REPOSITORY / file).read_text())["dependencies"]
    assert dependencies[:2] == ["python =3.11", "pip"]
    requirements = map(Requirement, dependencies[2]["pip"])
    return {canonicalize_name(r.name): pinned(r) for r in requirements}


def test_constraints_pin_every_requirement_to_an_allowed_version() -> None:
    pins = constraints()
    for requirement in [r for group in project().values() for r in group]:
        version = pins[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement}: {version} is pinned"


def test_environment_file_pins_what_the_project_needs() -> None:
    groups = project()
    listed = [*groups["main"], *groups["rewards"], *groups["cluster"]]
    needed = {canonicalize_name(r.name) for r in listed}
    pins = constraints()
    assert conda_pins("environment.yml") == {name: pins[name] for name in needed}


def test_job_environment_has_the_same_pins() -> None:
    whole, jobs = conda_pins("environment.yml"), conda_pins("workflow/envs/main.yaml")
    for_jobs = {name: version for name, version in whole.items() if "snakemake" not in name}
    assert jobs == for_jobs


def test_constraints_serve_every_index_and_every_build_of_torch() -> None:
    text = (REPOSITORY / "constraints.txt").read_text()
    assert "://" not in text
    assert "sha256" not in text
    assert re.search(r"^torch==2\.13\.0$", text, flags=re.MULTILINE)
    assert not re.search(r"^(nvidia|cuda|triton)", text, flags=re.MULTILINE)


def test_make_without_a_fit_python_says_what_to_do(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_text((REPOSITORY / name).read_text())
    for python in ("no-such-python", "false"):
        outcome = run(["make", f"PYTHON={python}", "results"], cwd=tmp_path)
        assert outcome.code != 0
        assert f"Python 3.11 or newer is needed, and '{python}' is not" in outcome.text
        assert not (tmp_path / ".venv").exists()


@pytest.mark.slow
def test_jobs_run_in_a_conda_environment(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--use-conda` with a conda command and a channel that need no network.

    BPGO_CONDA_TOOLS names a folder with `make_channel.py` (packs the running Python as a channel)
    and `standin/bin/conda`.
    """
    tools = os.environ.get("BPGO_CONDA_TOOLS")
    if not tools:
        pytest.skip("BPGO_CONDA_TOOLS names no folder with a conda command and a local channel")
    channel = tmp_path / "channel"
    made = run([sys.executable, str(Path(tools, "make_channel.py")), str(channel)])
    assert made.code == 0, made.text
    search = [str(Path(tools, "standin", "bin")), str(Path(sys.executable).parent)]
    monkeypatch.setenv("PATH", os.pathsep.join([*search, os.environ["PATH"]]))
    monkeypatch.setenv("STANDIN_CHANNEL", f"file://{channel}")
    prefix = tmp_path / "environments"
    outcome = workspace.snakemake(
        "--use-conda", "--conda-prefix", str(prefix), "--", "results/smoke/prompts/train.jsonl"
    )
    assert outcome.code == 0, outcome.text
    assert workspace.path("results/smoke/prompts/train.jsonl").exists()
    assert list(prefix.glob("*/bin/python"))
