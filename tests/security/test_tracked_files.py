"""Nothing in the repository names a machine's folders, a registry's address or a secret."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
FORBIDDEN = {
    "a folder of one machine": r"/(?:home|Users|work)/\w|/root\b",
    "an address of a package registry": r"pypi\.(?:org|python)|pythonhosted|conda\.anaconda\.org"
    r"|download\.pytorch|index.url[ =]+\S*://",
    "a token": r"hf_[A-Za-z0-9]{20,}|ghp_[A-Za-z0-9]{20,}|AKIA[0-9A-Z]{16}"
    r"|BEGIN [A-Z ]*PRIVATE KEY",
}
HERE = Path(__file__).relative_to(REPOSITORY)


def tracked_files() -> list[Path]:
    """Text files that git knows, or would add."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("not a git clone")
    return sorted({Path(name) for name in done.stdout.split("\0") if name} - {HERE})


def text_of(file: Path) -> str:
    """A file's text; empty for binary files and files just removed."""
    try:
        return (REPOSITORY / file).read_text(encoding="utf-8")
    except (UnicodeDecodeError, OSError):
        return ""


def test_no_file_names_a_machine_a_registry_or_a_secret() -> None:
    found = [
        f"{file}: {what}: {match[0]}"
        for file in tracked_files()
        for what, pattern in FORBIDDEN.items()
        if (match := re.search(pattern, text_of(file)))
    ]
    assert not found, "\n".join(found)


def test_no_file_is_large() -> None:
    limit = 6 * 1024**2  # bytes
    sizes = {file: (REPOSITORY / file).stat().st_size for file in tracked_files()}
    assert not {file: size for file, size in sizes.items() if size > limit}


def test_source_files_stay_readable() -> None:
    rooms = ("bpgo", "baselines", "workflow", "tests")
    sources = [f for f in tracked_files() if f.parts[0] in rooms and f.suffix in (".py", ".smk")]
    assert not {str(f): n for f in sources if (n := len(text_of(f).splitlines())) > 400}
