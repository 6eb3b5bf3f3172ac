"""Sealed JSON files: what was cut, changed or put in another's place is one refusal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bpgo.errors import UserError
from bpgo.storage.files import write_json
from bpgo.storage.seals import NUMBER, read_object, read_sealed, read_value, write_sealed

VALUE = {"std": 0.1, "runs": [{"arm": "grpo", "seed": None}], "means": {"b": 1e-17, "a": 2.0}}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_sealed(tmp_path / "value.json", VALUE, "calibration of clear")
    return tmp_path / "value.json"


def refusal(file: Path, *arguments: Any) -> str:
    with pytest.raises(UserError) as caught:
        read_sealed(file, "make it again", *arguments)
    assert str(caught.value).startswith(f"{file}: ")
    assert str(caught.value).endswith("; make it again")
    return str(caught.value)


def test_round_trip(file: Path) -> None:
    assert read_sealed(file, "") == VALUE
    assert read_sealed(file, "", "calibration of clear") == VALUE


def test_every_changed_character_is_found(file: Path) -> None:
    """But for spaces, and for the seal's own key: without one the file is an earlier version's."""
    text = file.read_text()
    key = text.index('"seal"')
    tried = 0
    for place, letter in enumerate(text):
        if letter.isspace() or key <= place < key + len('"seal"'):
            continue
        changed = "7" if letter != "7" else "8"
        file.write_text(text[:place] + changed + text[place + 1 :])
        refusal(file)
        tried += 1
    assert tried > 100


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_cut_file_is_named(file: Path, share: float) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    assert "cannot be read as JSON" in refusal(file)


def test_anothers_file_is_named(file: Path) -> None:
    wanted = "holds the calibration of clear, not the calibration of ambiguous"
    assert wanted in refusal(file, "calibration of ambiguous")


def test_a_file_of_earlier_versions_has_no_seal(tmp_path: Path) -> None:
    write_json(tmp_path / "old.json", VALUE)
    assert read_sealed(tmp_path / "old.json", "", "calibration of clear") == VALUE


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "no such file"),
        ("null", "holds None, which is not an object"),
        ("[1]", "holds [1], which is not an object"),
        ('"x"', "holds 'x', which is not an object"),
        ("{}", "has no 'std'"),
        ('{"std": "x"}', "std is 'x', which is not a number"),
        ('{"std": true}', "std is True, which is not a number"),
        ('{"std": null}', "std is None, which is not a number"),
        ('{"std": Infinity}', "Infinity is no number"),
        ('{"std": 1, "means": []}', "means is [], which is not an object"),
        ("[" * 100_000, "cannot be read as JSON"),
        (b"\xff\xfe{}", "cannot be read as JSON"),
    ],
)
def test_what_is_no_such_object(text: Any, reason: str, tmp_path: Path) -> None:
    file = tmp_path / "value.json"
    if isinstance(text, bytes):
        file.write_bytes(text)
    elif text is not None:
        file.write_text(text)
    assert reason in refusal(file, "", {"std": NUMBER}, {"means": dict})


def test_a_folder_in_a_files_place(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read as JSON"):
        read_object(tmp_path, "make it again")


def test_a_list(tmp_path: Path) -> None:
    write_json(tmp_path / "notes.json", [1, 2])
    assert read_value(tmp_path / "notes.json", "", list) == [1, 2]
    with pytest.raises(UserError, match="which is not a list; make it again"):
        write_json(tmp_path / "notes.json", {})
        read_value(tmp_path / "notes.json", "make it again", list)
