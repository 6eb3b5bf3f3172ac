"""Help, version and completion: what the program says of itself."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import Any

import pytest
import typer

from bpgo import __version__, cli
from bpgo.cli_help import FURTHER, GROUPS
from bpgo.storage.files import repository_root

COMMANDS: dict[str, Any] = cli.all_commands().commands  # type: ignore[attr-defined]


def call(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line as the installed program `bpgo` does."""
    code = "import sys; sys.argv[0] = 'bpgo'; from bpgo.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=repository_root(),
        env={**os.environ, "COLUMNS": "200", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def completed(line: str) -> set[str]:
    """What a shell offers at the end of a line."""
    words = line.split(" ")
    done = call(_BPGO_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=str(len(words) - 1))
    assert done.returncode == 0
    return set(done.stdout.split())


def test_version() -> None:
    done = call("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"bpgo {__version__}\n", "")


def test_h_is_help() -> None:
    short, long = call("-h"), call("--help")
    assert short.returncode == 0
    assert short.stdout == long.stdout
    assert call("plan", "-h").stdout == call("plan", "--help").stdout != short.stdout


def test_no_option_is_cut_in_a_narrow_terminal() -> None:
    shown = call("bench", "-h", COLUMNS="80").stdout
    assert "--random-weights" in shown
    assert "…" not in shown


@pytest.mark.parametrize("words", [["-v"], ["--versio"], ["plan", "-x"]])
def test_an_unknown_option_is_refused(words: list[str]) -> None:
    done = call(*words)
    assert done.returncode == 2
    assert "No such option" in done.stderr
    assert "Traceback" not in done.stderr


def test_every_command_stands_in_one_group() -> None:
    named = [name for names in GROUPS.values() for name in names]
    assert sorted(named) == sorted(COMMANDS), "name it in GROUPS of bpgo/cli_help.py"


def test_help_shows_the_groups_in_order() -> None:
    shown = call("--help").stdout
    places = [shown.index(f" {title} ") for title in GROUPS]
    assert places == sorted(places)
    assert FURTHER not in shown
    names = re.findall(r"^│ ([a-z][a-z-]+) ", shown, re.M)
    assert names == [name for names in GROUPS.values() for name in names]


def test_a_command_without_a_group_is_shown_too() -> None:
    app = typer.Typer()

    @app.command()
    def plan() -> None: ...

    @app.command()
    def newcomer() -> None: ...

    group = cli.cli_help.arrange(typer.main.get_command(app))
    panels = {name: command.rich_help_panel for name, command in group.commands.items()}
    assert panels == {"plan": "Before anything runs", "newcomer": FURTHER}


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("bpgo sc", {"schema", "score"}),
        ("bpgo schema --o", {"--of", "--output"}),
        ("bpgo schema --of a", {"arms"}),
        ("bpgo nonsense --o", set()),
        ("bpgo xyz", set()),
    ],
)
def test_completion(line: str, wanted: set[str]) -> None:
    assert completed(line) == wanted


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_its_script(shell: str) -> None:
    done = call("--show-completion", shell, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert done.returncode == 0
    assert "_BPGO_COMPLETE" in done.stdout
