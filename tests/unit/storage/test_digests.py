"""Weights that ship with the repository are loaded as they were made, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from bpgo.errors import UserError
from bpgo.storage.digests import DIGESTS, read_digests, verify, write_digests
from bpgo.storage.files import write_json


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    folder = tmp_path / "weights"
    for name in ("world.json", "policy/vae/config.json", "policy/vae/model.safetensors"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    write_digests(folder)
    verify(folder)
    verify(folder / "policy")
    return folder


@pytest.mark.parametrize("lost", ["policy/vae/config.json", "policy/vae/model.safetensors"])
def test_a_file_without_a_digest_is_refused_with_its_folder(weights: Path, lost: str) -> None:
    kept = {name: digest for name, digest in read_digests(weights).items() if name != lost}
    write_json(weights / DIGESTS, kept)
    for path in (weights, weights / "policy", weights / lost):
        with pytest.raises(UserError, match=f"{lost}: not listed in .*{DIGESTS}"):
            verify(path)


def test_notes_beside_the_weights_are_nobodys_concern(weights: Path) -> None:
    (weights / "policy" / "NOTES.md").write_text("mine")
    verify(weights)
    verify(weights / "policy")


@pytest.mark.parametrize("content", ["", "[]", "{", "[" * 100_000, '{"world.json": 3}', "null"])
def test_digests_that_are_none_are_named(weights: Path, content: str) -> None:
    (weights / DIGESTS).write_text(content)
    with pytest.raises(UserError) as caught:
        verify(weights / "policy")
    assert str(caught.value).startswith(f"{weights / DIGESTS}: ")
    assert len(str(caught.value).splitlines()) == 1


def test_a_changed_or_a_missing_file_is_named(weights: Path) -> None:
    file = weights / "policy" / "vae" / "config.json"
    file.write_text("other")
    with pytest.raises(UserError, match=f"{file}: file is corrupted, expected sha256"):
        verify(weights / "policy")
    file.unlink()
    with pytest.raises(UserError, match=f"{file}: file is missing, expected sha256"):
        verify(weights / "policy")


@pytest.mark.parametrize("target", ["/nowhere/at/all", "model.safetensors", "/etc/hostname"])
def test_a_link_in_the_place_of_a_file_is_checked(weights: Path, target: str) -> None:
    """Dangling, to itself, and to a file that nothing lists."""
    file = weights / "policy" / "vae" / "model.safetensors"
    file.unlink()
    file.symlink_to(target)
    for path in (file, weights / "policy"):
        with pytest.raises(UserError, match=f"{file}: file is (missing|corrupted)"):
            verify(path)


def test_weights_behind_a_link_are_checked(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").symlink_to(weights / "policy")
    verify(tmp_path / "mine")
    (weights / "policy" / "vae" / "config.json").write_text("other")
    with pytest.raises(UserError, match="file is corrupted"):
        verify(tmp_path / "mine")
