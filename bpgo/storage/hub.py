"""Files that others publish: a local path, or the Hugging Face hub at a pinned revision.

A `path` in a settings file is a local file or folder (absolute, or relative to the clone's root)
or a place on the hub: `owner/name`, for one file `owner/name/path/in/repository`. Nothing is
fetched where the hub's cache has it already.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from bpgo.errors import UserError, shortened, shown
from bpgo.storage.files import repository_root, sha256

RepositoryType = Literal["model", "dataset"]
# An owner's or a repository's name, as the hub allows it.
WORD = r"[A-Za-z0-9_](?:(?!--|\.\.)[A-Za-z0-9_.-]){0,95}(?<![.-])(?<!\.git)"
HUB_NAME = re.compile(rf"{WORD}/{WORD}(/[\w./-]+)?")
COMMIT = re.compile(r"[0-9a-f]{40}")


def folder(path: str, revision: str | None, what: str, patterns: Sequence[str] = ()) -> Path:
    """A local folder, or a hub repository's files that match `patterns` (all if empty).

    Args:
        path: as the module says.
        revision: the hub commit, 40 hexadecimal digits; ignored for a local folder.
        what: how messages name it, such as `model 'FLUX.1-dev'`.
        patterns: globs, such as `transformer/*`.

    Raises:
        UserError: if there is no such folder, or the hub does not hand it out.
    """
    local = local_path(path)
    if local is not None:
        if not local.is_dir():
            raise UserError(f"{what}: {local} is a file; a folder is needed")
        return local
    _check_hub_name(path, revision, what)

    def fetch() -> str:
        from huggingface_hub import snapshot_download

        return snapshot_download(path, revision=revision, allow_patterns=list(patterns) or None)

    return _fetched(fetch, path, what)


def file(
    path: str,
    revision: str | None,
    what: str,
    digest: str | None = None,
    repository_type: RepositoryType = "model",
) -> Path:
    """A local file, or one file of a hub repository.

    `digest` is the file's SHA-256; see `folder` for the other arguments.

    Raises:
        UserError: if there is no such file, the hub does not hand it out, or its digest differs.
    """
    found = local_path(path)
    if found is None:
        _check_hub_name(path, revision, what)
        owner, name, *rest = path.split("/")
        if not rest:
            raise UserError(f"{what}: '{path}' names no file: write owner/name/path/of/the/file")

        def fetch() -> str:
            from huggingface_hub import hf_hub_download

            return hf_hub_download(
                f"{owner}/{name}", "/".join(rest), revision=revision, repo_type=repository_type
            )

        found = _fetched(fetch, path, what)
    if not found.is_file():
        raise UserError(f"{what}: {found} is a folder; a file is needed")
    if digest is not None and (actual := sha256(found)) != digest:
        raise UserError(
            f"{what}: {found} has the SHA-256 {actual}, but {digest} is expected: the file is"
            " another one, or is damaged"
        )
    return found


def present(
    path: str, revision: str | None, repository_type: RepositoryType = "model"
) -> Path | None:
    """Where the file or folder lies on this machine, or None; never asks the network.

    Of a hub folder it says that some of it is there, not that it is whole.
    """
    local = local_path(path)
    if local is not None or not HUB_NAME.fullmatch(path):
        return local
    from huggingface_hub import snapshot_download, try_to_load_from_cache
    from huggingface_hub.errors import LocalEntryNotFoundError

    owner, name, *rest = path.split("/")
    if rest:
        cached = try_to_load_from_cache(
            f"{owner}/{name}", "/".join(rest), revision=revision, repo_type=repository_type
        )
        return Path(cached) if isinstance(cached, str) else None
    try:
        found = snapshot_download(
            path, revision=revision, repo_type=repository_type, local_files_only=True
        )
    except LocalEntryNotFoundError:
        return None
    return Path(found)


def local_path(path: str) -> Path | None:
    """The local file or folder that a `path` names, absolute or relative to the clone's root."""
    try:
        place = Path(path).expanduser()
        place = place if place.is_absolute() else repository_root() / place
        return place if place.exists() else None
    except (OSError, ValueError, RuntimeError):  # no path at all: too long, of nobody's home
        return None


def problem(path: str, revision: str | None, pinned: bool = True) -> str | None:
    """Why a path leads nowhere, whatever the hub has; None where it may lead somewhere.

    Unless it must be `pinned`, a place on the hub may have no revision yet.
    """
    if local_path(path) is not None:
        return None
    if path.startswith(("/", "~", ".")) or not HUB_NAME.fullmatch(path):
        return f"there is no file or folder '{shortened(path)}'"
    if not COMMIT.fullmatch(revision or "") and (pinned or revision is not None):
        return (
            f"there is no local file or folder '{shortened(path)}', and as a place on the hub it"
            f" needs a pinned revision (a commit of 40 hexadecimal digits), not {shown(revision)}"
        )
    return None


def _check_hub_name(path: str, revision: str | None, what: str) -> None:
    if wrong := problem(path, revision):
        raise UserError(f"{what}: {wrong}")


def _fetched(fetch: Callable[[], str], path: str, what: str) -> Path:
    """What `fetch` returns; the hub's errors as one message that says what to do."""
    from huggingface_hub import errors
    from huggingface_hub.utils.logging import set_verbosity_error
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    set_verbosity_error()  # its retries warn twelve times; the message below says it once
    owner = "/".join(path.split("/")[:2])
    try:
        return Path(fetch())
    except errors.GatedRepoError:
        raise UserError(
            f"{what}: {owner} is gated: accept its licence on its page at the hub, make an access"
            " token there, and give it by `hf auth login` or the variable HF_TOKEN"
        ) from None
    except errors.RevisionNotFoundError as error:
        raise UserError(
            f"{what}: the hub has no such revision of {owner}: {_line(error)}"
        ) from None
    except errors.RemoteEntryNotFoundError:
        raise UserError(f"{what}: {owner} has no such file: '{path}'") from None
    except errors.RepositoryNotFoundError:
        raise UserError(
            f"{what}: there is no local file or folder '{path}', and the hub has no repository"
            f" {owner} (or it is private: give a token by `hf auth login`)"
        ) from None
    except (errors.HfHubHTTPError, OSError) as error:
        raise UserError(
            f"{what}: '{path}' is not on this machine and the hub cannot be reached. Fetch it where"
            " there is a network (`hf download`), or name a local path under `overrides` in the"
            f" configuration. The hub said: {_line(error)}"
        ) from None


def _line(error: Any) -> str:
    return " ".join(str(error).split())[:200]
