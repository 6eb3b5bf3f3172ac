"""Folders of our own weights: `digests.json` holds the SHA-256 of every other file below them."""

from __future__ import annotations

import os
from pathlib import Path

from bpgo.errors import UserError
from bpgo.storage.files import read_json, sha256, write_json

DIGESTS = "digests.json"
LOADED = (".json", ".safetensors")  # what libraries read of such a folder
REMEDY = (
    "Restore the file from the repository (git checkout), or make all weights again with "
    "`snakemake --cores all pretrain`."
)


def write_digests(weights: Path) -> None:
    """Write ``digests.json`` for all files now below ``weights``."""
    files = sorted(path for path in weights.rglob("*") if path.is_file() and path.name != DIGESTS)
    digests = {path.relative_to(weights).as_posix(): sha256(path) for path in files}
    write_json(weights / DIGESTS, digests)


def read_digests(weights: Path) -> dict[str, str]:
    """SHA-256 by file below ``weights``, as ``digests.json`` has it.

    Raises:
        UserError: there is no such file, or it does not hold digests.
    """
    path = weights / DIGESTS
    try:
        found = read_json(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file: {weights} is no folder of weights") from None
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: cannot be read: {reason}. {REMEDY}") from None
    if not isinstance(found, dict) or not all(isinstance(each, str) for each in found.values()):
        raise UserError(f"{path}: must hold a digest for each file. {REMEDY}")
    return found


def verify(path: Path) -> None:
    """Check a file, or all files of a folder, against the ``digests.json`` above it.

    A path with no ``digests.json`` in it or above it (up to three levels) is not ours to check.

    Raises:
        UserError: a file is missing, has no digest, or another one; names the file, the digest
            expected, the digest found and the remedy.
    """
    found_at = _listed_in(path)
    if found_at is None:
        return
    path, root = found_at
    name = path.relative_to(root).as_posix()
    expected = {
        file: digest
        for file, digest in read_digests(root).items()
        if name in (".", file) or file.startswith(f"{name}/")
    }
    listed = {root / file for file in expected}
    if unlisted := _unlisted(path, listed) if expected else [path]:
        raise UserError(f"{unlisted[0]}: not listed in {root / DIGESTS}. {REMEDY}")
    for file, digest in sorted(expected.items()):
        if not (root / file).is_file():
            raise UserError(f"{root / file}: file is missing, expected sha256 {digest}. {REMEDY}")
        found = sha256(root / file)
        if found != digest:
            raise UserError(
                f"{root / file}: file is corrupted, expected sha256 {digest}, found {found}. "
                f"{REMEDY}"
            )


def _listed_in(path: Path) -> tuple[Path, Path] | None:
    """The path, absolute, and the folder above it that has digests.

    By the names that it is called by first: a link in the place of a shipped file is checked too.
    """
    # `Path.resolve` fails at a link to itself.
    for place in (Path(path).absolute(), Path(os.path.realpath(path))):
        for root in (place, *place.parents[:3]):
            if (root / DIGESTS).is_file():
                return place, root
    return None


def _unlisted(path: Path, listed: set[Path]) -> list[Path]:
    """Files of a folder that would be loaded unchecked."""
    files = (each for each in path.rglob("*") if each.suffix in LOADED and each.name != DIGESTS)
    return sorted(each for each in files if each.is_file() and each not in listed)
