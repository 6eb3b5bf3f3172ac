"""Whether runs are of one version of the code, and so belong in one table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bpgo.config.runs import Run
from bpgo.config.settings import Settings
from bpgo.errors import UserError

Manifests = Mapping[Run, dict[str, Any]]


def other_code(manifests: Manifests) -> tuple[Run, Run, str, str, str] | None:
    """A run, an earlier one of other code, what differs, and its two digests; None: all are of one.

    Two runs are of one code where no file that both use differs (`bpgo.run.code.code_of`): an arm
    that is added later does not change the code of the runs that are there. Manifests of earlier
    versions have one digest of all files.
    """
    firsts: dict[str, tuple[Run, str]] = {}
    stated = {"code" in manifest for manifest in manifests.values()}
    for run, manifest in manifests.items():
        whole = {"code_digest": str(manifest.get("code_digest"))}
        code = manifest["code"] if stated == {True} else whole
        for name, digest in code.items():
            first, before = firsts.setdefault(name, (run, digest))
            if digest != before:
                return run, first, name, digest, before
    return None


def refuse_mixed(settings: Settings, root: Path, manifests: Manifests, option: str) -> None:
    """Refuse the first run whose configuration or code differs.

    Raises:
        UserError: naming the run, what differs with both digests, and `option`, the way to join
            them all the same.
    """
    way_out = f"Remove it to train it again, or join them all the same: {option}"
    for run, manifest in manifests.items():
        expected, got = settings.run_digest(run), str(manifest.get("config_digest"))
        if got != expected:
            raise UserError(
                f"{root / 'runs' / run.folder}: made with another configuration: its config_digest"
                f" is {got}, this configuration's is {expected}. {way_out}"
            )
    found = other_code(manifests)
    if found is not None:
        run, first, name, digest, before = found
        raise UserError(
            f"{root / 'runs' / run.folder}: made with other code than {first.folder}: its {name}"
            f" is {digest}, the other's is {before}. {way_out}"
        )
