"""The pages in a real browser, on a phone and on a desk, light and dark."""

from __future__ import annotations

import pytest
from browser import browser_program, started

from bpgo.analysis.figures.make import make_figures
from bpgo.analysis.report import make_report
from bpgo.analysis.tables.make import make_tables

PROGRAM = browser_program()
SCREENS = [(width, scheme) for width in (390, 1280) for scheme in ("light", "dark")]
# Of every area wider than it shows: how far its first column is from its left end, once scrolled.
MOVED = """[...document.querySelectorAll('.scroll')].filter(a => a.querySelector('table')
  && a.clientWidth && a.scrollWidth > a.clientWidth + 1).map(a => { a.scrollLeft = 60;
  return a.querySelector('thead th').getBoundingClientRect().left
    - a.getBoundingClientRect().left - a.clientLeft; })"""
REACHED = """[...document.querySelectorAll('.scroll')].every(a => a.tabIndex == 0
  && a.getAttribute('role') == 'region' && a.getAttribute('aria-label'))"""
SCOPED = "[...document.querySelectorAll('th')].every(cell => cell.scope)"
BOTTOM = "document.querySelector('{}').getBoundingClientRect().bottom"


@pytest.mark.skipif(PROGRAM is None, reason="no Chromium or Chrome is installed")
def test_the_page_on_every_screen(settings, root, statistics, tmp_path):
    make_figures(settings, statistics, root / "collected", tmp_path / "figures")
    make_tables(settings, statistics, tmp_path / "tables")
    page = tmp_path / "index.html"
    make_report(settings, statistics, tmp_path / "tables", tmp_path / "figures", page)
    with started(PROGRAM, tmp_path / "browser") as browser:
        for width, scheme in SCREENS:
            height = 844 if width == 390 else 800
            browser.open(page, width, height, scheme)
            assert browser.value("document.documentElement.scrollWidth") <= width
            assert browser.value(REACHED)
            assert browser.value(SCOPED)
            for part in (".stamp", "#short p"):
                assert 0 < browser.value(BOTTOM.format(part)) < height, part
            moved = browser.value(MOVED)
            assert moved or width > 390
            assert all(abs(left) < 15 for left in moved), moved
            paper = browser.value("getComputedStyle(document.body).backgroundColor")
            assert (paper == "rgb(255, 255, 255)") == (scheme == "light")
        assert not browser.errors
        outside = [a for a in browser.requests if not a.startswith(("data:", page.as_uri()))]
        assert not outside
