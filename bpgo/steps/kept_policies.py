"""The policies that a training run leaves behind."""

from __future__ import annotations

from pathlib import Path

from bpgo.config.runs import Run
from bpgo.config.settings import Settings
from bpgo.errors import UserError
from bpgo.run.manifest import read_manifest
from bpgo.storage.files import sha256

POLICY, SNAPSHOTS = "policy", "snapshots"
AGAIN = "remove the run's folder, and the same command trains it again"


def failure_of(trained: Path) -> str | None:
    """Why a recorded run failed, by its manifest; None where it did not."""
    path = trained / "manifest.json"
    return read_manifest(path, AGAIN).get("failed") if path.is_file() else None


def stages_of(settings: Settings, trained: Path) -> list[tuple[int, Path]]:
    """(iteration, folder of weights), the final policy last."""
    *every, last = settings.training.stages()
    snapshots = [(step, trained / SNAPSHOTS / f"iteration_{step:06d}") for step in every]
    return [*snapshots, (last, trained / POLICY)]


def policy_digests(trained: Path) -> dict[str, str]:
    """SHA-256 of each file of the kept policies, by its path in the run's folder."""
    files = [
        file
        for folder in (POLICY, SNAPSHOTS)
        for file in sorted((trained / folder).rglob("*"))
        if file.is_file()
        and not any(part.startswith(".") for part in file.parts[len(trained.parts) :])
    ]
    return {file.relative_to(trained).as_posix(): sha256(file) for file in files}


def check_policies(settings: Settings, run: Run, trained: Path) -> None:
    """That the kept policies are those which this run has made, as its manifest says.

    A folder without a manifest is not a run of ours to check.

    Raises:
        UserError: if the run is of other settings, or a file is missing, changed or not its own.
    """
    path = trained / "manifest.json"
    if not path.is_file():
        return
    manifest = read_manifest(path, AGAIN)
    made_by, files = manifest["config_digest"], manifest.get("files", {})
    expected = settings.run_digest(run)
    if made_by != expected:
        raise UserError(
            f"{path}: a run of other settings than {run.folder} here: its digest is {made_by}, and"
            f" {expected} was expected; {AGAIN}"
        )
    found = policy_digests(trained) if files else {}
    for name in sorted({*files, *found}):
        if found.get(name) != files.get(name):
            what = "is missing" if name not in found else "is not what the run has made"
            raise UserError(f"{trained / name}: {what} (by the digests in {path}); {AGAIN}")
