"""Named files that are no files, or are cut: what is said of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from bpgo.config.resolve import load, load_prompts
from bpgo.errors import UserError


def refusal(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        load(folder / "config.yaml")
    return str(caught.value)


def test_a_link_that_leads_nowhere_and_a_folder(folder: Path) -> None:
    path = folder / "trust" / "bpgo.yaml"
    path.unlink()
    path.symlink_to("/no/such/file.yaml")
    message = refusal(folder)
    assert message.endswith(f"trust: 'bpgo' is unknown: {path} is a link that leads to no file")
    path.unlink()
    path.mkdir()
    assert refusal(folder).endswith(f"trust: 'bpgo' is unknown: {path} is no file")


@pytest.mark.parametrize("name", ["rewards/oracle", "prompts/scenes", "models/scenes"])
def test_a_cut_file_is_refused_whatever_it_is_of(name: str, folder: Path) -> None:
    """What it lacks may have a default."""
    path = folder / f"{name}.yaml"
    path.write_text(path.read_text().rstrip("\n"))
    assert f"{path}: cannot be read as YAML: its last line has no end" in refusal(folder)


def test_a_wrong_column_names_the_key_and_the_file_of_prompts(folder: Path) -> None:
    file = folder / "prompts" / "mine.yaml"
    file.with_name("mine.tsv").write_text("prompt\na cat\na dog\n")
    entry = f"  cats: {{path: {file.with_name('mine.tsv')}, column: text}}"
    file.write_text(f"kind: file\ntrain: 1\nevaluation: 1\nfiles:\n{entry}\n")
    with pytest.raises(UserError, match=r"mine.yaml: files.cats: .*mine.tsv, line 2: has no colu"):
        load_prompts("mine", folder)


@pytest.mark.parametrize("host", ["hub", "github"])
def test_a_published_file_that_can_be_nowhere(host: str, folder: Path) -> None:
    file = folder / "prompts" / "mine.yaml"
    entry = f"  cats: {{path: a b/c/d.txt, host: {host}, revision: {'a' * 40}}}"
    file.write_text(f"kind: file\ntrain: 1\nevaluation: 1\nfiles:\n{entry}\n")
    with pytest.raises(UserError, match=r"mine.yaml: files.cats.path: there is no file"):
        load_prompts("mine", folder)
