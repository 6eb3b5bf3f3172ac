"""Where no run was trained: policies that were trained elsewhere, or the base policy alone."""

from __future__ import annotations

import pandas as pd
import pytest
import synthetic

from bpgo.analysis import FIGURES, TABLES
from bpgo.analysis.collect import collect
from bpgo.analysis.figures.make import make_figures
from bpgo.analysis.report import make_report
from bpgo.analysis.statistics.compute import compute_statistics
from bpgo.analysis.tables.make import make_tables
from bpgo.config.given import GivenPolicy

FILES = {"their.safetensors": "0123456789abcdef" * 4}
GIVEN = {"theirs": GivenPolicy(title="Theirs", lora="their.safetensors", files=FILES)}


@pytest.mark.parametrize("policies", [{}, GIVEN], ids=["base", "given"])
def test_every_page_is_made(policies, tmp_path):
    small = {**synthetic.SMALL, "bootstrap_samples": 20, "clear": False, "sweep": ()}
    settings = synthetic.make_settings(**small).model_copy(update={"policies": policies})
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
    assert set(main["arm"]) == {"base", *policies}
    text = page.read_text(encoding="utf-8")
    assert "0 of 15 complete" in text
    assert ("Theirs (given)" in text) == bool(policies)
    assert ("Theirs: their.safetensors (SHA-256 0123456789abcdef)" in text) == bool(policies)
