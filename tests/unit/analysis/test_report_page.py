from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from bpgo.analysis import FIGURES, style
from bpgo.analysis.figures import CAPTIONS, DRAW, make_figures
from bpgo.analysis.grids import choose_prompts, make_grids
from bpgo.analysis.report import make_report
from bpgo.analysis.tables import make_tables
from bpgo.contact_sheet import enlarge
from bpgo.errors import UserError
from bpgo.files import repository_root
from bpgo.settings import Run


@pytest.fixture(scope="session")
def figures(settings, root, statistics):
    make_figures(settings, statistics, root / "collected", root / "figures")
    return root / "figures"


@pytest.fixture(scope="session")
def samples(settings, root):
    """Samples of the base policy, GRPO and BPGO; one seed of BPGO is missing."""
    for run in [*settings.base_runs(), *settings.runs()]:
        if run.arm not in ("base", "grpo", "bpgo") or run == Run("ambiguous", "bpgo", 2):
            continue
        folder = root / "samples" / run.folder
        (folder / "images").mkdir(parents=True)
        rows = []
        for k in range(12):
            colour = (40 * run.seed, 20 * k, 200)
            Image.new("RGB", (24, 24), colour).save(folder / "images" / f"{k}.png")
            rows.append(
                {
                    "prompt_id": f"e{k:04d}",
                    "text": "a small red circle <left> of a large blue square & a cross",
                    "ambiguity": k / 11,
                    "sample": 0,
                    "seed": run.seed,
                    "iteration": 0 if run.arm == "base" else 20,
                    "path": f"images/{k}.png",
                }
            )
        pd.DataFrame(rows).to_parquet(folder / "index.parquet")
    return root / "samples"


@pytest.fixture(scope="session")
def page(settings, root, statistics, figures, samples):
    make_tables(settings, statistics, root / "tables")
    make_grids(settings, samples, root / "grids")
    output = root / "report" / "index.html"
    make_report(settings, statistics, root / "tables", figures, output, grids=root / "grids")
    return output.read_text(encoding="utf-8")


class Reader(HTMLParser):
    """Collects addresses, ids and text; checks that tags close."""

    def __init__(self):
        super().__init__()
        self.addresses, self.ids, self.links, self.open = [], [], [], []
        self.text = ""

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.addresses += [found[key] for key in ("src", "srcset", "data") if key in found]
        if tag == "link":
            self.addresses.append(found.get("href"))
        if tag == "a":
            self.links.append(found["href"])
        if "id" in found:
            self.ids.append(found["id"])
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="session")
def read(page):
    reader = Reader()
    reader.feed(page)
    assert not reader.open
    return reader


def test_page_needs_nothing_from_elsewhere(page, read):
    assert read.addresses
    assert all(address.startswith("data:image/png;base64,") for address in read.addresses)
    assert not re.search(r"@import|url\(|<script|<link|<iframe", page)
    assert len(page) < 6e6


def test_page_holds_every_part(read):
    for name in FIGURES:
        assert f"figure-{name}" in read.ids
    assert {link.removeprefix("#") for link in read.links} <= set(read.ids)
    assert {"grid-ambiguous", "grid-clear", "limits", "missing", "table-main"} <= set(read.ids)


def test_page_escapes_what_comes_from_the_configuration(page):
    assert "Synthetic &lt;suite&gt; &amp; co" in page
    assert "<suite>" not in page


def test_page_names_missing_runs_and_digests(settings, read):
    for words in ("flow_grpo", "rollouts.parquet", settings.digest(), "c0de", "Imaginary CPU"):
        assert words in read.text


def test_answers_follow_the_statistics(settings, root, figures, frames, tmp_path, read):
    assert "GRPO raises its training reward by" in read.text
    assert "lowers the main metric" in read.text
    changed = tmp_path / "statistics"
    changed.mkdir()
    for file in (root / "statistics").iterdir():
        (changed / file.name).write_bytes(file.read_bytes())
    claims = frames["claims"].assign(claim_verdict="not resolved", verdict="not resolved")
    claims.to_parquet(changed / "claims.parquet")
    gaps = frames["differences"].assign(significant=False)
    gaps.to_parquet(changed / "differences.parquet")
    output = tmp_path / "index.html"
    make_report(settings, changed, root / "tables", figures, output)
    text = output.read_text()
    assert "✓ supported" not in text
    assert "✗ contradicted" not in text
    assert "raises its training reward by" not in text
    assert "No samples were at hand" in text


def test_smoke_page_warns(settings, root, statistics, figures, tmp_path):
    smoke = settings.model_copy(update={"scale": "smoke"})
    make_report(smoke, statistics, root / "tables", figures, tmp_path / "index.html")
    assert "smoke run" in (tmp_path / "index.html").read_text()


def test_report_without_figures_is_refused(settings, statistics, tmp_path):
    with pytest.raises(UserError, match=r"training_reward\.png"):
        make_report(settings, statistics, tmp_path, tmp_path, tmp_path / "index.html")


def test_every_figure_has_both_forms_and_a_caption(figures):
    expected = {f"{name}.{suffix}" for name in FIGURES for suffix in ("pdf", "png")}
    assert {path.name for path in figures.iterdir()} == expected
    assert set(CAPTIONS) == set(DRAW) == set(FIGURES)


def test_figures_are_equal_when_made_twice(settings, frames, figures, tmp_path):
    with style.look():
        for name in ("training_reward", "trust"):
            style.save_figure(DRAW[name](settings, frames), tmp_path, name)
    for path in sorted(tmp_path.iterdir()):
        content = path.read_bytes()
        assert content == (figures / path.name).read_bytes(), path.name
        assert b"CreationDate" not in content


def test_figures_without_data_say_so(settings, frames, tmp_path):
    plain = settings.model_copy(update={"sweeps": {}})
    empty = {name: frame.iloc[:0] for name, frame in frames.items()}
    for draw in DRAW.values():
        assert draw(plain, empty) is not None
    columnless = {name: pd.DataFrame() for name in ("premise", "premise_summary", "trust")}
    for name in ("premise", "trust"):
        figure = DRAW[name](plain, {**empty, **columnless, "trust_summary": pd.DataFrame()})
        assert "No " in figure.axes[0].texts[0].get_text()


def test_grid_places_equal_prompts_side_by_side(settings, root, samples, page):
    with Image.open(root / "grids" / "ambiguous.png") as image:
        pixels = np.asarray(image.convert("RGB"))
    tile = pixels[44 : 44 + 96, 300 : 300 + 96]
    assert (tile == tile[0, 0]).all()  # enlarged without smoothing
    assert tuple(tile[0, 0]) == (40, 0, 200)
    beside = pixels[44, 300 + 96 + 6]
    assert tuple(beside) == (40, 0, 200)


def test_grid_without_samples_is_refused(settings, tmp_path):
    with pytest.raises(UserError, match="no samples of base, grpo, bpgo"):
        make_grids(settings, tmp_path, tmp_path / "grids")


def test_prompts_span_the_ambiguities():
    index = pd.DataFrame(
        {"prompt_id": [f"p{k}" for k in range(50)], "ambiguity": np.arange(50) % 5}
    )
    chosen = choose_prompts(index, 6)
    assert len(chosen) == 6
    assert chosen["ambiguity"].is_monotonic_increasing
    assert set(chosen["ambiguity"]) == {0, 1, 2, 3, 4}
    assert len(choose_prompts(index.head(3), 6)) == 3


@pytest.mark.parametrize(("size", "expected"), [(24, 96), (50, 100), (512, 192)])
def test_images_are_enlarged_by_whole_factors(size, expected):
    assert enlarge(Image.new("RGB", (size, size))).size == (expected, expected)


def test_analysis_imports_no_torch():
    modules = sorted(
        f"bpgo.analysis.{path.stem}"
        for path in (repository_root() / "bpgo" / "analysis").glob("*.py")
        if path.stem != "__init__"
    )
    code = f"import sys, {', '.join(modules)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=repository_root()).returncode == 0


def test_captions_for_the_workflow_report():
    folder = repository_root() / "workflow" / "report"
    for name in FIGURES:
        assert "95%" in (text := (folder / f"figure_{name}.rst").read_text()) or "base sd" in text
