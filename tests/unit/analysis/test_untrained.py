"""Where no run was trained: the base policy alone."""

from __future__ import annotations

import pandas as pd
import synthetic

from bpgo.analysis import FIGURES, TABLES
from bpgo.analysis.collect import collect
from bpgo.analysis.figures.make import make_figures
from bpgo.analysis.report import make_report
from bpgo.analysis.statistics.compute import compute_statistics
from bpgo.analysis.tables.make import make_tables


def test_every_page_is_made(tmp_path):
    small = {**synthetic.SMALL, "bootstrap_samples": 20, "clear": False, "sweep": ()}
    settings = synthetic.make_settings(**small)
    synthetic.write_root(settings, tmp_path, skip=tuple(settings.runs()))
    collect(settings, tmp_path, tmp_path / "collected")
    compute_statistics(settings, tmp_path / "collected", tmp_path / "statistics")
    make_tables(settings, tmp_path / "statistics", tmp_path / "tables")
    make_figures(settings, tmp_path / "statistics", None, tmp_path / "figures")
    page = tmp_path / "report.html"
    make_report(settings, tmp_path / "statistics", tmp_path / "tables", tmp_path / "figures", page)
    assert all((tmp_path / "tables" / f"{name}.md").is_file() for name in TABLES)
    assert all((tmp_path / "figures" / f"{name}.png").is_file() for name in FIGURES)
    main = pd.read_csv(tmp_path / "tables" / "main.csv")
    assert set(main["arm"]) == {"base"}
    assert "0 of 15 complete" in page.read_text(encoding="utf-8")
