"""How an HTML page is made: its templates, and where and when it was made."""

from __future__ import annotations

import os
import shutil
import subprocess
from datetime import UTC, datetime
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from bpgo.config.settings import Settings
from bpgo.storage.files import repository_root

EPOCH = "SOURCE_DATE_EPOCH"  # the usual variable for files that are to be equal on another day


def render(template: str, **values: Any) -> str:
    """A page from a file of `bpgo/analysis/templates`; values are escaped."""
    environment = Environment(
        loader=PackageLoader("bpgo.analysis", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)


def stamp(settings: Settings, account: dict[str, Any] | None = None) -> dict[str, str]:
    """Date, commit and configuration of a page, for its first screen; `account`: of the runs."""
    seconds = os.environ.get(EPOCH, "")
    when = datetime.fromtimestamp(int(seconds), UTC) if seconds.isdigit() else datetime.now(UTC)
    found = {
        "Made": f"{when:%Y-%m-%d}",
        "Commit": commit(),
        "Configuration": settings.digest(),
    }
    if account is not None:
        found["Runs"] = f"{account['complete_runs']} of {account['expected_runs']}"
    return found


@cache
def commit() -> str:
    """The commit of the code that makes the page, and whether files differ from it."""
    root, git = repository_root(), shutil.which("git")
    if git is None or not (root / ".git").exists():
        return "unknown (no git repository)"

    def said(*arguments: str) -> str | None:
        command = [git, "-C", str(root), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        return done.stdout.strip() if done.returncode == 0 else None

    name, changed = said("rev-parse", "--short=12", "HEAD"), said("status", "--porcelain", "-uno")
    if name is None:
        return "unknown (git cannot read the repository)"
    return f"{name} with changes" if changed else name
