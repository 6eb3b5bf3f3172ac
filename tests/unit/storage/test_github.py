"""Files from GitHub: fetched once, checked, kept whole; every failure is one message."""

from __future__ import annotations

import hashlib
import http.client
import io
import urllib.error
from pathlib import Path
from typing import Any

import pytest

from bpgo.errors import UserError
from bpgo.storage import github

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PLACE = "owner/name/folder/file.txt"
CONTENT = b"one\ntwo\n"
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Host:
    """Stands in for GitHub: answers with `answer`, or raises it, and counts."""

    def __init__(self) -> None:
        self.answer: Any = CONTENT
        self.asked: list[str] = []

    def __call__(self, address: str, timeout: float) -> io.BytesIO:
        self.asked.append(address)
        if isinstance(self.answer, Exception):
            raise self.answer
        return io.BytesIO(self.answer)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setenv("BPGO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    host = Host()
    monkeypatch.setattr("urllib.request.urlopen", host)
    return host


def test_a_file_is_fetched_once_from_its_commit(host: Host, tmp_path: Path) -> None:
    assert github.present(PLACE, COMMIT) is None
    found = github.file(PLACE, COMMIT, "prompt file 'x'", DIGEST)
    assert found.read_bytes() == CONTENT
    assert found.is_relative_to(tmp_path / "cache")
    assert github.file(PLACE, COMMIT, "prompt file 'x'") == found
    assert github.present(PLACE, COMMIT) == found
    assert host.asked == [f"https://raw.githubusercontent.com/owner/name/{COMMIT}/folder/file.txt"]
    github.file(PLACE, COMMIT[::-1], "prompt file 'x'")  # another commit is another file
    assert len(host.asked) == 2


def test_a_local_file_comes_first(host: Host, tmp_path: Path) -> None:
    local = tmp_path / "file.txt"
    local.write_bytes(CONTENT)
    assert github.file(str(local), None, "prompt file 'x'", DIGEST) == local
    assert github.present(str(local), None) == local
    assert not host.asked


def test_a_wrong_digest_keeps_nothing(host: Host, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"has the SHA-256 {DIGEST}, but {'0' * 64} is expected"):
        github.file(PLACE, COMMIT, "prompt file 'x'", "0" * 64)
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_a_damaged_cache_is_seen(host: Host) -> None:
    found = github.file(PLACE, COMMIT, "prompt file 'x'", DIGEST)
    found.write_bytes(b"one\n")
    with pytest.raises(UserError, match=r"file\.txt has the SHA-256 .* or is damaged"):
        github.file(PLACE, COMMIT, "prompt file 'x'", DIGEST)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            urllib.error.HTTPError("address", 404, "Not Found", http.client.HTTPMessage(), None),
            f"GitHub has no file folder/file.txt in owner/name at {COMMIT}",
        ),
        (
            urllib.error.HTTPError("address", 429, "Too Many", http.client.HTTPMessage(), None),
            r"GitHub refuses .*429.*fetch-prompts",
        ),
        (urllib.error.URLError("Name or service not known"), "GitHub cannot be reached.*overrides"),
        (TimeoutError("timed out"), "GitHub cannot be reached"),
        (http.client.IncompleteRead(b"one"), "GitHub cannot be reached"),
    ],
)
def test_what_the_network_does(error: Exception, words: str, host: Host, tmp_path: Path) -> None:
    host.answer = error
    with pytest.raises(UserError, match=words) as caught:
        github.file(PLACE, COMMIT, "prompt file 'x'")
    assert str(caught.value).startswith("prompt file 'x': ")
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "cache").exists()


def test_offline_asks_nobody(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="HF_HUB_OFFLINE forbids to fetch it"):
        github.file(PLACE, COMMIT, "prompt file 'x'")
    assert not host.asked


@pytest.mark.parametrize(
    ("path", "revision", "words"),
    [
        ("owner/name", COMMIT, "must read owner/name/path"),
        ("owner/name/../../../file", COMMIT, "must read owner/name/path"),
        ("/no/such/file.txt", COMMIT, "there is no file '/no/such/file.txt'"),
        (PLACE, None, "needs a pinned revision"),
        (PLACE, "main", "not 'main'"),
    ],
)
def test_a_place_that_is_none(path: str, revision: str | None, words: str, host: Host) -> None:
    with pytest.raises(UserError, match=words):
        github.file(path, revision, "prompt file 'x'")
    assert not host.asked


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BPGO_CACHE", "~/prompts")
    assert github.cache_folder() == Path.home() / "prompts"
    monkeypatch.delenv("BPGO_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert github.cache_folder() == tmp_path / "bpgo"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert github.cache_folder() == Path.home() / ".cache" / "bpgo"
