"""One set of pins: pyproject.toml, constraints.txt, environment.yml and workflow/envs agree."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from harness import REPOSITORY, run
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ENVIRONMENT = {"python_version": "3.11", "python_full_version": "3.11.9"}

# Environments of single reward packages, with what they hold in another version than ours.
CONFLICTS = {
    "hpsv2": {
        "protobuf": "3.20.3",  # hpsv2 asks for one below 4
        "pytest": "7.2.0",  # hpsv2 asks for this one
    },
    "image_reward": {
        "transformers": "4.53.3",  # image-reward imports what 4.56 took away
        "tokenizers": "0.21.4",  # of transformers
        "huggingface-hub": "0.36.2",  # of transformers
        "diffusers": "0.34.0",  # the last that fits them
        "accelerate": "1.8.1",  # likewise
        "timm": "0.6.13",  # image-reward asks for this one
    },
}


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


def test_every_environment_is_known_here() -> None:
    names = {path.stem for path in (REPOSITORY / "workflow" / "envs").glob("*.yaml")}
    assert names == {"main", *CONFLICTS}
    files = (REPOSITORY / "config" / "rewards").glob("*.yaml")
    assert {yaml.safe_load(file.read_text()).get("environment", "main") for file in files} <= names


@pytest.mark.parametrize("name", CONFLICTS)
def test_a_reward_environment_differs_only_where_it_must(name: str) -> None:
    pins, ours = conda_pins(f"workflow/envs/{name}.yaml"), constraints()
    different = {
        package: version
        for package, version in pins.items()
        if package in ours and ours[package] != version
    }
    assert different == CONFLICTS[name]


@pytest.mark.parametrize("name", CONFLICTS)
def test_a_reward_environment_holds_what_scoring_imports(name: str) -> None:
    script = (
        "import json, sys\n"
        "import bpgo.cli, bpgo.config.resolve, bpgo.steps.score, bpgo.rewards.shared.checkpoints\n"
        "import bpgo.rewards.shared.preprocess, safetensors, huggingface_hub\n"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    found = run([sys.executable, "-c", script])
    assert found.code == 0, found.text
    distributions = packages_distributions()
    imported = {
        canonicalize_name(distribution)
        for module in json.loads(found.text)
        for distribution in distributions.get(module, [])
    }
    direct = {canonicalize_name(r.name) for r in project()["main"]}
    assert {"torch", "pandas", "typer", "pydantic", "pillow"} <= imported
    assert imported & direct <= conda_pins(f"workflow/envs/{name}.yaml").keys()


def test_constraints_serve_every_index_and_every_build_of_torch() -> None:
    text = (REPOSITORY / "constraints.txt").read_text()
    assert "://" not in text
    assert "sha256" not in text
    assert re.search(r"^torch==2\.13\.0$", text, flags=re.MULTILINE)
    assert not re.search(r"^(nvidia|cuda|triton)", text, flags=re.MULTILINE)


def python_like(tmp_path: Path, lines: str) -> Path:
    """A Python that runs these lines before the code that it is given."""
    found = tmp_path / "python"
    found.write_text(f'#!/bin/sh\nexec {sys.executable} "$1" "import sys; {lines}; $2"\n')
    found.chmod(0o755)
    return found


def refused(tmp_path: Path, python: str | Path) -> str:
    """What `make results` says of a Python with which it does not begin."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_text((REPOSITORY / name).read_text())
    outcome = run(["make", f"PYTHON={python}", "results"], cwd=tmp_path)
    assert outcome.code != 0
    assert not (tmp_path / ".venv").exists()
    return outcome.text


@pytest.mark.parametrize("version", ["(2, 7, 18)", "(3, 10, 99)", "(3, 15, 0)", "(4, 0, 0)"])
def test_make_without_a_fit_python_says_what_to_do(tmp_path: Path, version: str) -> None:
    for python in ("no-such-python", "false", python_like(tmp_path, f"sys.version_info={version}")):
        said = refused(tmp_path, python)
        assert f"Python 3.11 to 3.14 is needed, and '{python}' is not" in said


@pytest.mark.parametrize(
    "lack",
    [
        "import os; os.environ['CC'] = 'no-such-compiler -O2'",
        "import sysconfig; sysconfig.get_config_vars()['INCLUDEPY'] = '/nowhere'",
    ],
    ids=["no compiler", "no headers"],
)
def test_make_says_what_python_3_14_needs(tmp_path: Path, lack: str) -> None:
    said = refused(tmp_path, python_like(tmp_path, f"sys.version_info=(3, 14, 0); {lack}"))
    [line] = [line for line in said.splitlines() if line.startswith("error: ")]
    assert "a C compiler and Python's header files" in line
    assert "make PYTHON=/path/to/python3.13 results" in line


def test_every_file_names_the_same_pythons() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == ">=3.11,<3.15"
    for name in ("README.md", "Makefile"):
        assert "Python 3.11 to 3.14" in (REPOSITORY / name).read_text()
