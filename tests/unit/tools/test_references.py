"""docs/references.bib: an entry for every paper that is named, and none that nothing names."""

from __future__ import annotations

import re

import yaml

from bpgo.storage.files import repository_root
from bpgo.tools.algorithms import PAPER, references

ROOT = repository_root()
BIB = (ROOT / "docs" / "references.bib").read_text(encoding="utf-8")
PLACES = ("bpgo", "baselines", "config", "docs", "README.md", "CONTRIBUTING.md")
KINDS = (".py", ".yaml", ".md")


def entries() -> dict[str, dict[str, str]]:
    """The fields of every entry by its key."""
    found = {}
    for text in BIB.split("\n@")[1:]:
        key = text[text.index("{") + 1 : text.index(",")]
        assert key not in found, f"{key} stands there twice"
        found[key] = dict(re.findall(r"^  (\w+) = \{(.*)\},$", text, re.M))
    return found


def texts() -> str:
    files = [ROOT / place for place in PLACES if (ROOT / place).is_file()]
    for place in PLACES:
        files += [file for file in (ROOT / place).rglob("*") if file.suffix in KINDS]
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


def plain(name: str) -> str:
    """A surname without TeX's accents: what a text would have, whatever it does with them."""
    return re.sub(r"\{?\\['`\"]?\{?(\w)\}?\}?", r"\1", name)


def test_every_paper_of_an_arm_has_an_entry_that_its_section_names() -> None:
    page = (ROOT / "docs" / "algorithms.md").read_text(encoding="utf-8")
    known = references(BIB)
    for path in sorted((ROOT / "config" / "arms").glob("*.yaml")):
        source = str(yaml.safe_load(path.read_text(encoding="utf-8")).get("source", ""))
        section = page.partition(f"<!-- made of config/arms/{path.name} -->")[2]
        for paper in PAPER.findall(source):
            assert paper in known, f"{path.name}: {paper}"
            assert f"`{known[paper]}`" in section.partition("<!-- end -->")[0], path.name


def test_every_paper_that_a_text_names_has_an_entry() -> None:
    named = set(re.findall(r"(?:arXiv:? |arxiv\.org/abs/|and )(\d{4}\.\d{5})\b", texts()))
    assert named <= set(references(BIB)), named - set(references(BIB))


def test_no_entry_is_an_orphan() -> None:
    everything = texts()
    for key, fields in entries().items():
        if "eprint" in fields:
            assert fields["eprint"] in everything, key
            continue
        surname = plain(fields["author"].split(",")[0])
        start = re.escape(surname[:2]) + r"\w" * (len(surname) - 2)
        there = re.search(rf"{start}\b[^\n]*(\n[^\n]*)?\b{fields['year']}\b", everything)
        assert there, f"{key}: no text names {surname} {fields['year']}"


def test_entries_are_whole() -> None:
    for key, fields in entries().items():
        assert {"title", "author", "year"} <= set(fields), key
        if "eprint" in fields:
            year = 2000 + int(fields["eprint"][:2])
            assert int(fields["year"]) == year, f"{key}: {fields['eprint']} is of {year}"
