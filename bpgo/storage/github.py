"""Files of public GitHub repositories at a pinned commit, kept in a cache of our own.

The cache is the folder that BPGO_CACHE names, else `bpgo` in the user's cache folder. Nothing is
fetched where the cache has it; HF_HUB_OFFLINE keeps this module off the network too.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import urllib.error
import urllib.request
from pathlib import Path

from bpgo.errors import UserError, shortened
from bpgo.storage import hub
from bpgo.storage.files import atomic_path, sha256

RAW = "https://raw.githubusercontent.com"  # /owner/name/commit/path/in/repository
TIMEOUT = 60  # seconds without an answer
GITHUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(/[\w.-]+)+")


def cache_folder() -> Path:
    """Where fetched files are kept on this machine."""
    chosen = os.environ.get("BPGO_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "bpgo"


def file(path: str, revision: str | None, what: str, digest: str | None = None) -> Path:
    """A local file, or one file of a GitHub repository.

    Args:
        path: a local path, or `owner/name/path/in/repository`.
        revision: the commit, 40 hexadecimal digits; ignored for a local file.
        what: how messages name it.
        digest: the file's SHA-256, if known.

    Raises:
        UserError: if there is no such file, GitHub does not hand it out, or its digest differs.
    """
    if hub.local_path(path) is not None:
        return hub.file(path, None, what, digest)
    place = _cached(path, revision, what)
    if not place.is_file():
        content = _fetch(path, str(revision), what)
        _check(hashlib.sha256(content).hexdigest(), digest, f"{what}: {path} at {revision}")
        with atomic_path(place) as temporary:
            temporary.write_bytes(content)
    else:
        _check(sha256(place), digest, f"{what}: {place}")
    return place


def present(path: str, revision: str | None) -> Path | None:
    """Where the file lies on this machine, or None; never asks the network."""
    local = hub.local_path(path)
    if local is not None:
        return local
    place = _cached(path, revision, path)
    return place if place.is_file() else None


def problem(path: str, revision: str | None) -> str | None:
    """Why a path leads nowhere, whatever GitHub has; None where it may lead somewhere."""
    parts = path.split("/")
    if not GITHUB_NAME.fullmatch(path) or ".." in parts or "." in parts:
        return (
            f"there is no file '{shortened(path)}', and as a place on GitHub it must read"
            " owner/name/path/of/the/file"
        )
    if not hub.COMMIT.fullmatch(revision or ""):
        return (
            f"there is no local file '{path}', and as a place on GitHub it needs a pinned"
            f" revision (a commit of 40 hexadecimal digits), not {revision!r}"
        )
    return None


def _cached(path: str, revision: str | None, what: str) -> Path:
    if wrong := problem(path, revision):
        raise UserError(f"{what}: {wrong}")
    owner, name, *rest = path.split("/")
    return cache_folder().joinpath("github", owner, name, str(revision), *rest)


def _check(actual: str, digest: str | None, place: str) -> None:
    if digest is not None and actual != digest:
        raise UserError(
            f"{place} has the SHA-256 {actual}, but {digest} is expected: the file is another one,"
            " or is damaged"
        )


def _fetch(path: str, revision: str, what: str) -> bytes:
    owner, name, *rest = path.split("/")
    address = "/".join([RAW, owner, name, revision, *rest])
    remedy = (
        " Fetch it where there is a network (`python -m bpgo fetch-prompts`), or name a local path"
        " under `overrides` in the configuration."
    )
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise UserError(
            f"{what}: '{path}' is not on this machine, and HF_HUB_OFFLINE forbids to fetch it."
            + remedy
        )
    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT) as answer:  # noqa: S310 (https)
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        if error.code == 404:
            raise UserError(
                f"{what}: GitHub has no file {'/'.join(rest)} in {owner}/{name} at {revision}"
            ) from None
        raise UserError(f"{what}: GitHub refuses {address}: {error}.{remedy}") from None
    except (OSError, http.client.HTTPException) as error:
        raise UserError(
            f"{what}: '{path}' is not on this machine and GitHub cannot be reached"
            f" ({' '.join(str(error).split())[:200]}).{remedy}"
        ) from None
