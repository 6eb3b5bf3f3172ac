"""Files that Docker, editors, GitHub and the catalog read say what the project says."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import REPOSITORY

from bpgo.config.library import NAMED
from bpgo.config.resolve import KEYS, WORKFLOW_OPTIONS

README = (REPOSITORY / "README.md").read_text()
DOCKERFILE = REPOSITORY / "Dockerfile"
CONTAINER = json.loads((REPOSITORY / ".devcontainer" / "devcontainer.json").read_text())
TEMPLATES = REPOSITORY / ".github" / "ISSUE_TEMPLATE"
FORMS = sorted(path for path in TEMPLATES.glob("*.yml") if path.stem != "config")
INSTRUCTIONS = {"FROM", "ARG", "RUN", "USER", "WORKDIR", "COPY", "CMD"}  # that ours has


def instructions() -> list[tuple[str, str]]:
    """Each instruction of the Dockerfile, on one line, without comments."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [tuple(line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]  # type: ignore[misc]


def arguments_of(name: str) -> list[str]:
    return [value for word, value in instructions() if word == name]


def python_version() -> str:
    """Of the conda environments, whose pins are compared elsewhere."""
    [line] = [
        each
        for each in yaml.safe_load((REPOSITORY / "environment.yml").read_text())["dependencies"]
        if str(each).startswith("python ")
    ]
    return line.removeprefix("python =")


def workflow() -> dict[Any, Any]:
    values: dict[Any, Any] = yaml.safe_load(
        (REPOSITORY / ".github" / "workflows" / "tests.yml").read_text()
    )
    return values


def plan_of(*targets: str) -> str:
    """What make would do for targets that have not been made; it ends well or the test fails."""
    command = ["make", "--dry-run", "--always-make", *targets]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_image_has_the_python_of_the_project() -> None:
    assert arguments_of("FROM") == [f"python:{python_version()}-slim AS tools", "tools"]
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert project["requires-python"].startswith(f">={python_version()},")


def test_the_image_is_built_of_known_instructions() -> None:
    assert {word for word, _ in instructions()} == INSTRUCTIONS
    assert instructions()[0][0] == "FROM"
    words = shlex.split(arguments_of("RUN")[0])  # a shell can read it
    assert words[words.index("install") + 1 : words.index("&&", 3)] == [
        "--yes",
        "--no-install-recommends",
        "git",
        "make",
    ]
    assert arguments_of("USER") == ["bpgo"], "nothing of ours runs as the superuser"
    assert "bpgo" in words[words.index("useradd") :]
    assert arguments_of("WORKDIR")[0] in words, "the folder is made for that user"


def test_the_image_runs_both_commands_of_the_readme() -> None:
    both = re.findall(r"^(make \w+) +#", README[: README.index("## What you get")], re.M)
    assert both[:2] == ["make results", "make test"]
    assert json.loads(arguments_of("CMD")[0]) == both[0].split()
    shown = re.findall(r"^docker run (.*)$", README, re.M)
    assert any(line.split("#")[0].strip().endswith("bpgo") for line in shown)
    assert any(line.split("#")[0].strip().endswith(f"bpgo {both[1]}") for line in shown)
    assert "docker build -t bpgo" in README


def test_the_image_is_set_up_for_both() -> None:
    """What it installs is what `make test` asks for, which is all that `make results` does."""
    [setup] = [value for value in arguments_of("RUN") if value.startswith("make ")]
    target = shlex.split(setup)[1]
    installed = [line for line in plan_of(target).splitlines() if "pip install" in line]
    assert len(installed) == 1
    assert installed[0] in plan_of("test")
    assert "-c constraints.txt" in installed[0]
    makefile = (REPOSITORY / "Makefile").read_text()
    recipe = re.search(r"^\$\(VENV\)/\.dev:.*\n((?:\t.*\n)+)", makefile, re.M)
    assert recipe
    assert "touch $@ $(VENV)/.main" in recipe[1], "so that `make results` is set up too"


def test_the_readme_mounts_the_folder_of_results() -> None:
    folder = arguments_of("WORKDIR")[0]
    assert f':{folder}/results"' in README


def test_an_image_leaves_out_what_git_leaves_out() -> None:
    def listed(name: str) -> set[str]:
        lines = (REPOSITORY / name).read_text().splitlines()
        kept = (line for line in lines if line.strip() and not line.startswith("#"))
        return {line.strip("/").removeprefix("**/") for line in kept}

    assert listed(".dockerignore") == listed(".gitignore")


def test_the_dev_container_starts_from_the_image() -> None:
    file = (REPOSITORY / ".devcontainer" / CONTAINER["build"]["dockerfile"]).resolve()
    assert file == DOCKERFILE
    assert (file.parent / ".devcontainer" / CONTAINER["build"]["context"]).resolve() == REPOSITORY
    assert any(
        line.endswith(f" AS {CONTAINER['build']['target']}") for line in arguments_of("FROM")
    )
    assert CONTAINER["remoteUser"] in arguments_of("USER")
    make, *targets = CONTAINER["postCreateCommand"].split()
    assert make == "make"
    assert "pip install" in plan_of(*targets)
    python = CONTAINER["customizations"]["vscode"]["settings"]["python.defaultInterpreterPath"]
    venv = re.search(r"^VENV := (\S+)$", (REPOSITORY / "Makefile").read_text(), re.M)
    assert venv
    assert python == f"${{containerWorkspaceFolder}}/{venv[1]}/bin/python"


def test_the_workflow_on_github_runs_all_tests() -> None:
    values = workflow()
    assert set(values[True]) == {"push", "pull_request"}  # YAML 1.1 reads the key `on` as true
    assert values["permissions"] == {"contents": "read"}
    steps = values["jobs"]["tests"]["steps"]
    [setup] = [step["with"] for step in steps if step.get("uses", "").startswith("actions/setup-p")]
    assert setup["python-version"] == python_version()
    assert all((REPOSITORY / name).is_file() for name in setup["cache-dependency-path"].split())
    [command] = [step["run"].split() for step in steps if "run" in step]
    script = (REPOSITORY / command[1]).read_text()
    assert re.search(r"^make test$", script, re.M)
    assert re.search(r"^make lint$", script, re.M)
    [given] = [step["env"] for step in steps if "env" in step]
    assert set(given) <= set(re.findall(r"^(\w+) \?=", (REPOSITORY / "Makefile").read_text(), re.M))


def test_actions_are_of_a_version() -> None:
    for step in workflow()["jobs"]["tests"]["steps"]:
        assert re.fullmatch(r"actions/[\w-]+@v\d+", step.get("uses", "actions/checkout@v4"))


@pytest.mark.parametrize("file", FORMS, ids=lambda file: file.stem)
def test_a_template_is_a_form(file: Path) -> None:
    """As GitHub reads one: known kinds of fields, each with a label, ids once."""
    form = yaml.safe_load(file.read_text())
    assert set(form) <= {"name", "description", "title", "labels", "assignees", "body"}
    assert form["name"]
    assert form["description"]
    names = [field["id"] for field in form["body"]]
    assert len(names) == len(set(names)) > 0
    for field in form["body"]:
        assert field["type"] in ("textarea", "input", "dropdown")
        assert set(field) == {"type", "id", "attributes", "validations"}
        allowed = {"label", "description", "placeholder", "value", "render", "options", "multiple"}
        assert "label" in field["attributes"]
        assert set(field["attributes"]) <= allowed
        assert (field["type"] == "dropdown") == ("options" in field["attributes"])
        assert set(field["validations"]) == {"required"}


def test_templates_name_what_exists() -> None:
    assert len(FORMS) >= 3
    assert set(yaml.safe_load((TEMPLATES / "config.yml").read_text())) == {"blank_issues_enabled"}
    text = "".join(file.read_text() for file in FORMS)
    for name in re.findall(r"\b(?:docs|baselines)/[\w/]+\.md|\b[A-Z]+\.md", text):
        assert (REPOSITORY / name).is_file(), name
    assert "python -m bpgo doctor" in text


def test_the_catalog_reads_how_the_workflow_is_used() -> None:
    """The catalog's standard: keys of usage, and instructions in config/README.md."""
    values = yaml.safe_load((REPOSITORY / ".snakemake-workflow-catalog.yml").read_text())
    assert set(values) == {"usage"}
    assert set(values["usage"]) == {"mandatory-flags", "software-stack-deployment"}
    assert set(values["usage"]["mandatory-flags"]) == {"desc", "flags"}
    deployment = values["usage"]["software-stack-deployment"]
    assert deployment == {
        "conda": True,  # every rule has an environment, and tests install them
        "apptainer": False,
        "apptainer+conda": False,
        "report": True,  # rules mark outputs with report()
    }
    rules = [file.read_text() for file in (REPOSITORY / "workflow" / "rules").glob("*.smk")]
    assert any("report(" in text for text in rules)
    assert all(text.count("    shell:") == text.count("    conda:") for text in rules)
    assert "snakemake" in README.lower()
    assert "workflow" in README.lower()


def test_the_guide_to_configurations_has_every_key() -> None:
    guide = (REPOSITORY / "config" / "README.md").read_text()
    tables = guide.split("\n\n| ")
    words = [set(re.findall(r"^\| `(\w+)` \|", table, re.M)) for table in tables[1:]]
    assert words == [set(KEYS), set(WORKFLOW_OPTIONS), {*NAMED, "overlays", "searches"}]
    for link in re.findall(r"\]\(([^)#]+)", guide):
        assert (REPOSITORY / "config" / link).exists(), link
    defaults = dict(re.findall(r"^\| `(\w+)` \| `(\w+)` \|", guide, re.M))
    assert {name: yaml.safe_load(text) for name, text in defaults.items()} == WORKFLOW_OPTIONS
