"""The command line: a mistake is one line and exit code 2, never a traceback."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from bpgo import cli
from bpgo.config import resolve as config
from bpgo.errors import NonFiniteError, RunInterruptedError, UserError
from bpgo.storage.files import repository_root

COMMANDS: dict[str, Any] = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
WITH_CONFIG = [
    name
    for name, command in COMMANDS.items()
    if any(parameter.name == "config" for parameter in command.params)
]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a command line: (exit code, standard output, standard error)."""

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["bpgo", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
            raise SystemExit(0)
        output = capsys.readouterr()
        code = caught.value.code
        return (0 if code is None else int(code)), output.out, output.err

    return call


@pytest.fixture(scope="module")
def resolved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "resolved.yaml"
    config.save_resolved(config.load(config.default_configfile(), "smoke"), path)
    return path


def required(command: str, folder: Path, **given: str | Path) -> list[str]:
    """Values for all options that a command requires."""
    arguments = [command]
    for parameter in COMMANDS[command].params:
        if parameter.required or parameter.name in given:
            value = "1" if parameter.name == "seed" else folder / parameter.name
            arguments += [parameter.opts[0], str(given.get(parameter.name, value))]
    return arguments


@pytest.mark.parametrize("command", COMMANDS)
def test_help(command: str, run: Any) -> None:
    code, output, _ = run(command, "--help")
    assert code == 0
    assert "Usage" in output
    for parameter in COMMANDS[command].params:
        assert parameter.opts[0] in output


def test_the_list_of_commands(run: Any) -> None:
    code, output, _ = run("--help")
    assert code == 0
    assert all(name in output for name in COMMANDS)


@pytest.mark.parametrize("command", WITH_CONFIG)
@pytest.mark.parametrize("content", [None, "{", "title: x\n"])
def test_bad_configuration(command: str, content: str | None, run: Any, tmp_path: Path) -> None:
    path = tmp_path / "resolved.yaml"
    if content is not None:
        path.write_text(content)
    before = sorted(tmp_path.rglob("*"))
    code, output, error = run(*required(command, tmp_path, config=path))
    assert code == 2
    assert output == ""
    assert error.startswith(f"error: {path}: ")
    assert error.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("command", "given", "wanted"),
    [
        ("resolve", {"configfile": "missing.yaml"}, "missing.yaml: no such file"),
        ("resolve", {"scale": "tiny"}, "--scale: 'tiny' is unknown. Allowed: full, smoke"),
        ("bench", {"configfile": "missing.yaml"}, "missing.yaml: no such file"),
        ("prompts", {"split": "test"}, "--split: 'test' is unknown"),
        ("calibrate", {"experiment": "cleer"}, "'cleer' is unknown. Did you mean 'clear'?"),
        ("calibrate", {"experiment": "clear"}, "prompts: no such file"),
        ("judge", {"experiment": "cleer"}, "'cleer' is unknown. Did you mean 'clear'?"),
        ("judge", {"experiment": "clear"}, "prompts: no such file"),
        ("draw", {"sampler": "dance_0p5"}, "--sampler: 'dance_0p5' is unknown. Did you mean"),
        ("draw", {"sampler": "dance_1p6_2"}, "prompts: no such file"),
        ("sample-base", {}, "prompts: no such file"),
        ("train", {"experiment": "cleer"}, "'cleer' is unknown. Did you mean 'clear'?"),
        ("train", {"experiment": "clear", "arm": "gpro"}, "'gpro' is unknown. Did you mean"),
        ("train", {"experiment": "clear", "arm": "grpo"}, "prompts: no such file"),
        ("sample", {"experiment": "clear", "arm": "grpo"}, "prompts: no such file"),
        ("sample", {"experiment": "clear", "arm": "base"}, "`sample-base` samples it"),
        ("score", {"experiment": "clear", "arm": "gpro"}, "'gpro' is unknown"),
        ("score", {"experiment": "clear", "arm": "base"}, "index.parquet: no such file"),
        (
            "score",
            {"experiment": "clear", "arm": "base", "environment": "hps"},
            "--environment: no reward runs in 'hps'. Known: main",
        ),
    ],
)
def test_bad_argument(
    command: str, given: dict[str, str], wanted: str, run: Any, resolved: Path, tmp_path: Path
) -> None:
    options = {"config": resolved} if command in WITH_CONFIG else {}
    code, output, error = run(*required(command, tmp_path, **options, **given))
    assert code == 2
    assert output == ""
    assert error.startswith("error: ")
    assert wanted in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments", [["trian"], ["train", "--armm", "x"], ["train", "--seed", "a"]]
)
def test_bad_usage(arguments: list[str], run: Any) -> None:
    code, _, error = run(*arguments)
    assert code == 2
    assert "Usage" in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("failure", "code"), [(UserError, 2), (NonFiniteError, 3), (RunInterruptedError, 75)]
)
def test_exit_codes(
    failure: type[Exception],
    code: int,
    run: Any,
    resolved: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_arguments: object) -> None:
        raise failure("this and that")

    monkeypatch.setattr("bpgo.steps.prompts.write_prompts", fail)
    found = run(*required("prompts", tmp_path, config=resolved))
    assert found == (code, "", "error: this and that\n")


def test_a_bug_keeps_its_traceback(
    resolved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("bpgo.steps.prompts.write_prompts", fail)
    monkeypatch.setattr(sys, "argv", ["bpgo", *required("prompts", tmp_path, config=resolved)])
    with pytest.raises(ZeroDivisionError):
        cli.main()


def test_resolve_and_prompts_write_files(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "resolved.yaml"
    assert run("resolve", "--scale", "smoke", "--output", path) == (0, "", "")
    assert config.load_resolved(path).scale == "smoke"
    output = tmp_path / "prompts" / "train.jsonl"
    assert run("prompts", "--config", path, "--split", "train", "--output", output) == (0, "", "")
    assert len(output.read_text().splitlines()) == config.load_resolved(path).prompts.train


def test_schema(run: Any, tmp_path: Path) -> None:
    code, output, _ = run("schema")
    assert code == 0
    assert "rollout" in json.loads(output)["properties"]
    assert run("schema", "--output", tmp_path / "schema.json")[0] == 0
    assert (tmp_path / "schema.json").read_text() == output


def test_as_a_module() -> None:
    found = subprocess.run(
        [sys.executable, "-m", "bpgo", "resolve", "--output", "x", "--configfile", "missing.yaml"],
        cwd=repository_root(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr == "error: missing.yaml: no such file\n"


def test_configurations_of_several_files(run: Any, tmp_path: Path) -> None:
    path, part = tmp_path / "resolved.yaml", "config/overlays/part.yaml"
    files = ("--configfile", "config/config.yaml", part)
    assert run("resolve", *files, "--output", path) == (0, "", "")
    assert [each.arm for each in config.load_resolved(path).runs()] == ["grpo", "bpgo"]
    code, output, _ = run("plan", *files, "--json")
    assert (code, json.loads(output)["runs"]) == (0, 2)
    _, output, _ = run("doctor", *files, "--json")
    [found] = json.loads(output)["configurations"]
    assert (found["configfile"], found["overlays"]) == ("config/config.yaml", [part])


@pytest.mark.parametrize("command", ["plan", "doctor"])
def test_a_further_file_alone_is_no_configuration(command: str, run: Any) -> None:
    code, output, error = run(command, "config/overlays/part.yaml")
    assert (code, output) == (2, "")
    assert error == (
        "error: config/overlays/part.yaml: is no option; a configuration stands behind"
        " --configfile\n"
    )
