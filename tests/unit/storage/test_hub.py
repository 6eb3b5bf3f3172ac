"""Local paths, the hub's cache, and what is said where the hub cannot help."""

from __future__ import annotations

from pathlib import Path

import pytest

from bpgo.errors import UserError
from bpgo.storage import hub
from bpgo.storage.files import sha256

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def _empty_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No network, and a cache of the test's own."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


def put_in_cache(tmp_path: Path, repository: str, name: str, text: str) -> Path:
    """Lay a file into the hub's cache as a download does."""
    folder = tmp_path / "hub" / ("models--" + repository.replace("/", "--"))
    file = folder / "snapshots" / COMMIT / name
    file.parent.mkdir(parents=True)
    file.write_text(text)
    return file


def test_a_local_path_is_taken_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("text")
    assert hub.file(str(file), None, "reward 'x'", sha256(file)) == file
    assert hub.folder(str(tmp_path), None, "model 'x'") == tmp_path
    assert hub.present(str(file), None) == file
    assert hub.folder("bpgo/scenes", None, "model 'x'").is_dir()  # relative to the clone


def test_what_the_hub_handed_out_before_needs_no_network(tmp_path: Path) -> None:
    file = put_in_cache(tmp_path, "owner/name", "sub/file.txt", "text")
    assert hub.file("owner/name/sub/file.txt", COMMIT, "reward 'x'") == file
    assert hub.present("owner/name/sub/file.txt", COMMIT) == file
    assert hub.present("owner/name/other.txt", COMMIT) is None
    assert hub.present("owner/other", COMMIT) is None
    assert hub.present("/no/such/file", None) is None
    assert hub.present("-owner/name", COMMIT) is None


@pytest.mark.parametrize(
    ("path", "revision", "words"),
    [
        ("/no/such/folder", None, "there is no file or folder '/no/such/folder'"),
        ("owner/name", None, "needs a pinned revision"),
        ("owner/name", "main", "not 'main'"),
        ("owner/name", COMMIT, "the hub cannot be reached"),
        *[  # as the hub names no repository
            (path, COMMIT, f"there is no file or folder '{path}'")
            for path in ("-owner/name", "owner/name-", "owner/a--b", "owner/a.git", "own er/name")
        ],
    ],
)
def test_a_folder_that_cannot_be_had(path: str, revision: str | None, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        hub.folder(path, revision, "model 'x'")
    assert str(caught.value).startswith("model 'x': ")


def test_a_file_that_cannot_be_had(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="names no file"):
        hub.file("owner/name", COMMIT, "reward 'x'")
    with pytest.raises(UserError, match="the hub cannot be reached"):
        hub.file("owner/name/a.pt", COMMIT, "reward 'x'")
    with pytest.raises(UserError, match="is a folder; a file is needed"):
        hub.file(str(tmp_path), None, "reward 'x'")
    file = tmp_path / "a.txt"
    file.write_text("text")
    with pytest.raises(UserError, match="is a file; a folder is needed"):
        hub.folder(str(file), None, "model 'x'")
    with pytest.raises(UserError, match="but 0000 is expected"):
        hub.file(str(file), None, "reward 'x'", "0000")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("GatedRepoError", "owner/name is gated: accept its licence"),
        ("RepositoryNotFoundError", "the hub has no repository owner/name"),
        ("RevisionNotFoundError", "no such revision of owner/name"),
        ("RemoteEntryNotFoundError", "owner/name has no such file"),
    ],
)
def test_what_the_hub_refuses(error: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub import errors

    kind = getattr(errors, error)

    def refuse(*_: object, **__: object) -> str:
        failure = kind.__new__(kind)
        failure.args = ("404 for this address",)
        raise failure

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    with pytest.raises(UserError, match=words):
        hub.file("owner/name/a.pt", COMMIT, "reward 'x'")
