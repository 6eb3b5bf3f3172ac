"""What YAML would take for something else than was meant is refused with its line."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from bpgo.config.yaml_files import read_yaml
from bpgo.errors import UserError

REFUSED = {
    "key twice": ("a: 1\nb: 2\na: 1\n", "line 3: the key 'a' is there already, in line 1"),
    "inner key twice": ("a:\n  b: 1\n  b: 2\n", "line 3: the key 'b' is there already, in line 2"),
    "octal": ("a: 060\n", "line 1: '060' would be read to another base"),
    "negative octal": ("a: [1, -010]\n", "'-010'"),
    "sexagesimal": ("a: 1:30\n", "'1:30' would be read to another base"),
    "sexagesimal fraction": ("a: 1:30.5\n", "'1:30.5'"),
    "date": ("title: 2024-01-01\n", "'2024-01-01' would be read as a date"),
    "no date": ("title: 2024-13-45\n", "'2024-13-45' would be read as a date"),
    "number as a key": ("7: 1\n", "the key 7 is not text"),
    "truth as a key": ("on: 1\n", "the key on is not text"),
    "list as a key": ("? [a, b]\n: 1\n", "line 1: the key of several values is not text"),
    "a value in itself": ("a: &x {b: *x}\n", "line 1: this value holds itself"),
    "a list in itself": ("a: &x [*x]\n", "this value holds itself"),
    "python tag": ("a: !!python/object/apply:os.system ['true']\n", "python/object/apply"),
    "set": ("a: !!set {b, c}\n", "the tag set is not allowed"),
    "bytes": ("a: !!binary aGk=\n", "the tag binary is not allowed"),
    "no number": ("a: !!int banana\n", "line 1: 'banana' cannot be read as int"),
    "no truth": ("b: [1,\n  !!bool banana]\n", "line 2: 'banana' cannot be read as bool"),
    "too many digits": (f"a: {'9' * 5000}\n", "line 1: '99999"),
    "a control character": ("a: 1\nb: \a\n", "line 2: '\\x07' is no character of a text"),
    "too deep": ("a: " + "[" * 5000 + "]" * 5000 + "\n", "cannot be read as YAML"),
    "no text": ('a: "b\\0c"\n', "holds a character that is no text"),
    "two documents": ("a: 1\n---\na: 1\n", "cannot be read as YAML"),
    "a list": ("- 1\n", "must hold a mapping"),
    "nothing": ("# nothing\n", "must hold a mapping"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str, tmp_path: Path) -> None:
    text, wanted = REFUSED[case]
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        read_yaml(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert wanted in message
    assert len(message.splitlines()) == 1
    assert len(message) < 800


def test_what_is_meant_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    text = (
        "a: &x {b: [0, 10, 0.5, 1e-4, -3, 0x10]}\nc: *x\nd: {<<: *x, e: '060'}\nf: '2024-01-01'\n"
    )
    path.write_text(f"\ufeff{text}", encoding="utf-8")
    assert read_yaml(path) == yaml.safe_load(text)


def test_a_file_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"b: 1\na: \xe9\n")
    with pytest.raises(UserError, match=r"line 2: the byte 0xe9 is no text in UTF-8: save"):
        read_yaml(path)


def test_a_cut_file_is_refused_where_it_would_be_valid(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("base: grpo\nnoise_level: 1.2")
    assert read_yaml(path) == {"base": "grpo", "noise_level": 1.2}
    with pytest.raises(UserError, match=r"mine.yaml: .* its last line has no end: it may be cut"):
        read_yaml(path, cut=False)
