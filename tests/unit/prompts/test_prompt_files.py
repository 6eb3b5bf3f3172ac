"""Prompt sets from files: every format, a seeded choice, splits apart, bad input named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
import pytest
import yaml

from bpgo.config import resolve as config
from bpgo.errors import UserError
from bpgo.prompts.formats import Format, read_rows
from bpgo.prompts.sets import PromptList, load_prompt_set
from bpgo.steps import prompts
from bpgo.storage.files import sha256

TEXTS = ["a cat", 'a "quoted" dog', "a fox, asleep", "ein Bär", "a line\u2028mark"]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def frame(texts: list[str]) -> pandas.DataFrame:
    return pandas.DataFrame({"prompt": texts, "open": 0.5})


WRITERS: dict[Format, Callable[[Path, list[str]], Any]] = {
    "txt": lambda path, texts: path.write_text("\n".join(texts) + "\n", encoding="utf-8"),
    "jsonl": lambda path, texts: frame(texts).to_json(path, orient="records", lines=True),
    "json": lambda path, texts: frame(texts).to_json(path, orient="records"),
    "tsv": lambda path, texts: path.write_text(
        "open\tprompt\n" + "".join(f"0.5\t{text}\n" for text in texts), encoding="utf-8"
    ),
    "csv": lambda path, texts: frame(texts).to_csv(path, index=False),
    "parquet": lambda path, texts: frame(texts).to_parquet(path),
}


def prompt_set(folder: Path, files: dict[str, Any], **values: Any) -> Any:
    """The set of `prompts/mine.yaml`, resolved and loaded."""
    values = {"kind": "file", "train": 2, "evaluation": 2, **values, "files": files}
    (folder / "prompts").mkdir(exist_ok=True)
    (folder / "prompts" / "mine.yaml").write_text(yaml.safe_dump(values))
    return load_prompt_set(config.load_prompts("mine", folder))


def own(folder: Path, *lines: str, name: str = "mine.txt") -> dict[str, Any]:
    """A user's own text file as the one file of a set."""
    path = folder / name
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return {"mine": {"path": str(path)}}


def published(folder: Path, *lines: str, **changes: Any) -> dict[str, Any]:
    """The same as a published file, which lies on this machine."""
    return {"mine": {**own(folder, *lines)["mine"], "revision": COMMIT, **changes}}


def refusal(folder: Path, files: dict[str, Any], **values: Any) -> str:
    """The one line of a mistake."""
    with pytest.raises(UserError) as caught:
        prompt_set(folder, files, **values).split("train")
    message = str(caught.value)
    assert len(message.splitlines()) == 1, message
    return message


def texts(made: PromptList) -> list[str]:
    return [prompt.text for prompt in made.prompts]


@pytest.mark.parametrize("form", WRITERS)
def test_every_format_holds_the_same_prompts(form: Format, tmp_path: Path) -> None:
    path = tmp_path / f"mine.{form}"
    WRITERS[form](path, TEXTS)
    rows = read_rows(path, form, "prompt", None if form == "txt" else "open")
    assert [row.text for row in rows] == TEXTS
    assert {row.ambiguity for row in rows} == {None if form == "txt" else 0.5}
    first = 2 if form in ("tsv", "csv") else 1  # a header stands above
    assert [row.number for row in rows] == list(range(first, first + len(TEXTS)))


def test_a_json_list_of_texts(tmp_path: Path) -> None:
    path = tmp_path / "photo.json"
    path.write_text(json.dumps(TEXTS))
    assert [row.text for row in read_rows(path, "json", "prompt")] == TEXTS


def test_one_file_serves_both_splits(tmp_path: Path) -> None:
    lines = [f"prompt number {i}" for i in range(50)]
    made = prompt_set(tmp_path, own(tmp_path, *lines), train=30, evaluation=20)
    train, evaluation = made.split("train"), made.split("evaluation")
    assert len(train.prompts) == 30
    assert len(evaluation.prompts) == 20
    assert sorted(texts(train) + texts(evaluation)) == sorted(lines)
    for prompt in train.prompts:  # an id says the line
        assert prompt.id == f"mine-{lines.index(prompt.text) + 1:05d}"
        assert prompt.ambiguity is None


def test_the_order_is_seeded_and_another_prompt_moves_none(tmp_path: Path) -> None:
    lines = [f"prompt number {i}" for i in range(50)]
    files = own(tmp_path, *lines)
    first = texts(prompt_set(tmp_path, files, evaluation=48).split("evaluation"))
    assert first != lines[:48]
    assert texts(prompt_set(tmp_path, files, evaluation=48).split("evaluation")) == first
    assert texts(prompt_set(tmp_path, files, evaluation=10).split("evaluation")) == first[:10]
    assert texts(prompt_set(tmp_path, files, seed=1).split("evaluation")) != first[:2]
    in_file = prompt_set(tmp_path, files, order="file")
    assert texts(in_file.split("evaluation")) == lines[:2]
    assert texts(in_file.split("train")) == lines[2:4]
    more = own(tmp_path, *lines, "one more")
    again = texts(prompt_set(tmp_path, more, evaluation=48).split("evaluation"))
    assert [text for text in again if text != "one more"] == first[: 48 - ("one more" in again)]


def test_training_takes_nothing_that_evaluation_took(tmp_path: Path) -> None:
    files = {
        "a": {**own(tmp_path, "one", "two", "three", name="a.txt")["mine"], "split": "train"},
        "b": {**own(tmp_path, "two", "four", name="b.txt")["mine"], "split": "evaluation"},
    }
    made = prompt_set(tmp_path, files)
    assert set(texts(made.split("train"))) == {"one", "three"}
    assert set(texts(made.split("evaluation"))) == {"two", "four"}
    assert made.split("train").manifest["files"]["a"]["in_evaluation"] == 1
    assert "train: 3 prompts are wanted, but a hold 2 different ones" in refusal(
        tmp_path, files, train=3
    )
    del files["b"]
    assert "none of them serves the split 'evaluation'" in refusal(tmp_path, files)


def test_a_text_in_two_files_counts_once(tmp_path: Path) -> None:
    files = {
        "a": own(tmp_path, "one", "two", name="a.txt")["mine"],
        "b": own(tmp_path, "two", "three", "four", name="b.txt")["mine"],
    }
    made = prompt_set(tmp_path, files, evaluation=3, train=1)
    together = texts(made.split("evaluation")) + texts(made.split("train"))
    assert sorted(together) == ["four", "one", "three", "two"]
    assert made.split("evaluation").manifest["files"]["b"]["in_an_earlier_file"] == 1


LONG = "x" * 2001
BAD_LINES = {
    "empty line": (["one", "", "two"], "mine.txt, line 2: is empty; remove it"),
    "only spaces": (["one", "two", "  "], "mine.txt, line 3: is empty; remove it"),
    "duplicate": (["one", "two", "a  b", "a b"], "line 4: 'a b' is given twice, first in 3"),
    "too long": (["one", LONG], "line 2: has 2001 characters; a prompt has at most 2000"),
}


@pytest.mark.parametrize("case", BAD_LINES)
def test_a_bad_line_of_a_users_own_file(case: str, tmp_path: Path) -> None:
    lines, wanted = BAD_LINES[case]
    assert wanted in refusal(tmp_path, own(tmp_path, *lines))


def test_a_bad_line_of_the_own_file_beside_a_published_one(tmp_path: Path) -> None:
    files = {
        **own(tmp_path, "one", "", "two"),
        "other": {"path": "owner/name/a.txt", "revision": COMMIT, "split": "evaluation"},
    }
    with pytest.raises(UserError, match=r"mine\.txt, line 2: is empty"):
        prompt_set(tmp_path, files)  # before anything is fetched


def test_bad_lines_of_a_published_file_are_left_out_and_counted(tmp_path: Path) -> None:
    files = published(tmp_path, "one", "", "two", "one", LONG, "three", "four", licence="MIT")
    made = prompt_set(tmp_path, files).split("evaluation")
    note = made.manifest["files"]["mine"]
    assert note["dropped"] == {"empty": 1, "duplicate": 1, "too_long": 1}
    assert note["rows"] == 7
    (line,) = prompts.describe(made)
    for word in ("evaluation: 7 rows", "licence MIT", note["sha256"], "1 duplicate", "1 empty"):
        assert word in line
    assert "evaluation: 5 prompts are wanted" in refusal(tmp_path, files, evaluation=5)


BAD_FILES: dict[str, tuple[str, bytes, str]] = {
    "not UTF-8": ("a.txt", b"one\ntwo \xff\n", "a.txt, line 2: is not UTF-8"),
    "no JSON": ("a.jsonl", b'{"prompt": "one"}\n{"prompt"\n', "a.jsonl, line 2: is not JSON"),
    "empty line of JSONL": ("a.jsonl", b'{"prompt": "one"}\n\n', "a.jsonl, line 2: is empty"),
    "no JSON list": ("a.json", b'{"prompt": "one"}', "must hold a list of prompts"),
    "broken JSON": ("a.json", b'["one",\n', "a.json, line 2: is not JSON"),
    "no object": ("a.jsonl", b"3\n", "a.jsonl, line 1: needs an object with 'prompt'"),
    "missing field": (
        "a.jsonl",
        b'{"prompt": "one"}\n{"text": "two"}\n',
        "a.jsonl, line 2: has no column 'prompt'. It has: text",
    ),
    "missing column": ("a.tsv", b"Prompt\tn\none\t1\n", "line 2: has no column 'prompt'"),
    "short row": ("a.csv", b"n,prompt\n1,one\n2\n", "a.csv, line 3: has no column 'prompt'"),
    "unclosed quotation": ("a.csv", b'prompt\n"one\n', "a.csv, line 2: cannot be read"),
    "no text": ("a.jsonl", b'{"prompt": 3}\n', "line 1: 'prompt' is not text: 3"),
    "half an emoji": (
        "a.jsonl",
        b'{"prompt": "one"}\n{"prompt": "a cat \\ud83d"}\n',
        "a.jsonl, line 2: 'prompt' holds half a character: 'a cat \\ud83d'",
    ),
    "half an emoji in a list": (
        "a.json",
        b'["one", "\\ude00"]',
        "a.json, entry 2: 'text' holds half",
    ),
    "no Parquet": ("a.parquet", b"nothing", "a.parquet: cannot be read as Parquet"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file(case: str, tmp_path: Path) -> None:
    name, content, wanted = BAD_FILES[case]
    path = tmp_path / name
    path.write_bytes(content)
    assert wanted in refusal(tmp_path, {"mine": {"path": str(path)}})


def test_a_missing_column_of_a_parquet_file(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pandas.DataFrame({"caption": ["one"]}).to_parquet(path)
    message = refusal(tmp_path, {"mine": {"path": str(path)}})
    assert "a.parquet: has no column 'prompt'. It has: caption" in message


@pytest.mark.parametrize("value", ["high", "1.5", "-0.1", "nan"])
def test_a_bad_ambiguity(value: str, tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text(f"prompt\topen\none\t0.5\ntwo\t{value}\n")
    message = refusal(tmp_path, {"mine": {"path": str(path), "ambiguity_column": "open"}})
    assert f"a.tsv, line 3: ambiguity '{value}' is not a number from 0 to 1" in message


BAD_SETTINGS = {
    "missing file": ({"path": "no/such/file.txt"}, "files.mine.path: there is no file 'no/such"),
    "missing copy": (
        {"path": "/no/such/file.txt", "revision": COMMIT},
        "files.mine.path: there is no file '/no/such/file.txt'",
    ),
    "unknown ending": ({"path": "a.doc"}, "files.mine.format: the name"),
    "misspelt key": ({"path": "a.txt", "colunm": "x"}, "Did you mean 'column'?"),
    "unknown format": ({"path": "a.txt", "format": "xml"}, "files.mine.format: 'xml'"),
    "bad digest": ({"path": "a.txt", "sha256": "abc"}, "files.mine.sha256: 'abc'"),
    "a branch": (
        {"path": "a.txt", "revision": "main"},
        "files.mine.revision: 'main' is not allowed: it must be a pinned revision (a commit of 40",
    ),
    "a commit that reads backwards": (
        {"path": "owner/name/a.txt", "revision": f"\u202e{COMMIT[1:]}"},
        r"files.mine.revision: '\u202e123",
    ),
    "a commit and a line end": (
        {"path": "owner/name/a.txt", "revision": f"{COMMIT}\n"},
        "files.mine.revision: '0123",
    ),
    "a column without a name": (
        {"path": "owner/name/a.tsv", "revision": COMMIT, "column": "  "},
        "files.mine.column: '  ' is not allowed: it must be one line of visible text",
    ),
    "other digest": ({"path": "a.txt", "sha256": "0" * 64}, f"but {'0' * 64} is expected"),
}


@pytest.mark.parametrize("case", BAD_SETTINGS)
def test_a_bad_setting(case: str, tmp_path: Path) -> None:
    entry, wanted = BAD_SETTINGS[case]
    for name in ("a.txt", "a.doc"):
        (tmp_path / name).write_text("one\ntwo\nthree\nfour\n")
    if entry["path"].startswith("a."):
        entry = {**entry, "path": str(tmp_path / entry["path"])}
    message = refusal(tmp_path, {"mine": entry})
    assert wanted in message
    assert "mine" in message


def test_unknown_kind_of_set(tmp_path: Path) -> None:
    message = refusal(tmp_path, own(tmp_path, "one"), kind="fil")
    assert "mine.yaml: kind: 'fil' is not a registered kind of prompt set" in message
    assert "Did you mean 'file'? Known: file, scenes" in message


def test_the_content_of_a_local_file_is_part_of_the_settings(tmp_path: Path) -> None:
    lines = ["one", "two", "three", "four"]
    before = prompt_set(tmp_path, own(tmp_path, *lines)).settings
    assert before.files["mine"].sha256 == sha256(tmp_path / "mine.txt")
    assert prompt_set(tmp_path, own(tmp_path, *lines)).settings == before
    assert prompt_set(tmp_path, own(tmp_path, *lines, "five")).settings != before
    with pytest.raises(UserError, match=f"but {before.files['mine'].sha256} is expected"):
        load_prompt_set(before).split("train")  # changed after it was resolved


def test_our_own_list() -> None:
    made = load_prompt_set(config.load_prompts("starter", config.default_configfile().parent))
    train, evaluation = made.split("train").prompts, made.split("evaluation").prompts
    assert (len(train), len(evaluation)) == (8, 24)
    assert not {prompt.text for prompt in train} & {prompt.text for prompt in evaluation}
    for chosen in (train, evaluation):  # from specified to open
        assert min(float(prompt.ambiguity) for prompt in chosen) < 0.2
        assert max(float(prompt.ambiguity) for prompt in chosen) > 0.8
    assert all(prompts.ID.fullmatch(prompt.id) for prompt in train + evaluation)


@pytest.mark.parametrize(
    "other",
    ["cafe\u0301 at night", "caf\u00e9\u200b at night", "\ufeffcaf\u00e9 at\u00a0night"],
    ids=["composed", "zero_width", "mark_and_space"],
)
def test_texts_that_look_alike_are_one_prompt(tmp_path: Path, other: str) -> None:
    """So none can be in both splits: not of one file, not of two."""
    with pytest.raises(UserError, match=r"mine\.txt, line 2: '.*' is given twice, first in 1"):
        prompt_set(tmp_path, own(tmp_path, "caf\u00e9 at night", other, "a fox"))
    files = {
        "judged": {**own(tmp_path, "caf\u00e9 at night", name="judged.txt")["mine"]},
        "trained": {**own(tmp_path, other, "a fox", name="trained.txt")["mine"]},
    }
    files["judged"]["split"], files["trained"]["split"] = "evaluation", "train"
    prompts = prompt_set(tmp_path, files, train=1, evaluation=1)
    assert [prompt.text for prompt in prompts.split("train").prompts] == ["a fox"]


def test_a_text_of_invisible_characters_is_empty(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"line 2: is empty"):
        prompt_set(tmp_path, own(tmp_path, "a cat", "\u200b\u200d", "a dog"))


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("long.csv", "prompt,open\na cat,0.5\na cat, asleep,0.5\n", "line 3: has 3 fields"),
        ("long.tsv", "prompt\ta\na cat\tb\tc\n", "line 2: has 3 fields"),
        ("twice.csv", "prompt,prompt\na cat,a dog\n", "line 1: names the column 'prompt' twice"),
    ],
)
def test_rows_that_do_not_fit_their_header(tmp_path: Path, name: str, text: str, said: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(UserError, match=said):
        read_rows(path, "csv" if name.endswith("csv") else "tsv", "prompt")
