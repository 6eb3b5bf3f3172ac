"""The page on algorithms: up to date, and made of the files."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import yaml

from bpgo.storage.files import repository_root
from bpgo.tools.algorithms import deviations, ordered, page, stated

ROOT = repository_root()
PAGE = (ROOT / "docs" / "algorithms.md").read_text(encoding="utf-8")
NAMES = sorted(path.stem for path in (ROOT / "config" / "arms").glob("*.yaml"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A copy of what the page is made of."""
    shutil.copytree(ROOT / "config", tmp_path / "config")
    (tmp_path / "baselines").mkdir()
    shutil.copy(ROOT / "baselines" / "README.md", tmp_path / "baselines")
    (tmp_path / "docs").mkdir()
    shutil.copy(ROOT / "docs" / "references.bib", tmp_path / "docs")
    return tmp_path


def test_the_page_is_up_to_date() -> None:
    assert page(PAGE, ROOT) == PAGE, "run: python -m bpgo.tools.algorithms"


def test_every_arm_has_a_section_with_its_formula() -> None:
    assert sorted(ordered(ROOT)) == NAMES
    for section in PAGE.split("\n## ")[1:]:
        title, _, rest = section.partition("\n")
        own = rest.partition("<!-- made of")[0]
        assert len(own.split()) >= 5, f"{title} says nothing of itself"
    assert len(PAGE.split("\n## ")) == len(NAMES) + 1


def test_a_published_arm_says_how_ours_differs() -> None:
    notes = deviations((ROOT / "baselines" / "README.md").read_text(encoding="utf-8"))
    assert notes["grpo"].startswith("noise level (0.6; published 0.25)")
    assert {"dance_grpo", "awm", "dgpo", "crd", "flow_dppo", "diffusion_nft"} <= set(notes)
    assert f"Ours differs: {notes['crd']}." in PAGE


def test_a_value_and_its_source_are_the_files(root: Path) -> None:
    path = root / "config" / "arms" / "awm.yaml"
    text = path.read_text().replace("clip_range: 1.0              # AW", "clip_range: 0.25  # BW")
    path.write_text(text)
    made = page(PAGE, root)
    assert "| `clip_range` | `0.25` | BW clip_range: as good as none |" in made
    assert made.replace("`0.25` | BW", "`1.0` | AW") == PAGE


def test_a_new_file_gets_a_section_and_others_keep_theirs(root: Path) -> None:
    values = {"base": "awm", "title": "Mine", "source": "ours"}
    (root / "config" / "arms" / "mine.yaml").write_text(yaml.safe_dump(values))
    made = page(PAGE, root)
    assert ordered(root)[ordered(root).index("awm") + 1] == "mine"
    section = re.search(r"\n## Mine\n.*?<!-- end -->\n", made, re.S)
    assert section is not None
    assert "Differs from `grpo` in its likelihood" in section[0]
    assert "as in [awm.yaml](../config/arms/awm.yaml)" in section[0]
    assert made.replace(section[0], "", 1).split() == PAGE.split()
    kept = made.replace("Differs from `grpo` in its likelihood", "By hand:")
    assert page(kept, root) == kept


def test_a_comment_beside_and_above_belongs_to_its_value(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("a: 1  # one\n      # more\n\n# Above.\nb:\n  c: {d: 2}  # two\ne: [3]\n")
    assert stated(path) == {"a": (1, "one more"), "b.c.d": (2, "two"), "e": ([3], "")}
