"""Real models: no oracle, prompts of unknown ambiguity, the paper's numbers beside ours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import synthetic

from bpgo.analysis import FIGURES, TABLES
from bpgo.analysis.collect import collect
from bpgo.analysis.figures.make import make_figures
from bpgo.analysis.report import make_report
from bpgo.analysis.statistics.compute import compute_statistics, load_statistics
from bpgo.analysis.tables.make import make_tables
from bpgo.errors import UserError


@pytest.fixture(scope="module")
def settings():
    return synthetic.make_settings(**{**synthetic.SMALL, "oracle": False})


@pytest.fixture(scope="module")
def folder(settings, tmp_path_factory) -> Path:
    """Everything from runs to statistics."""
    root = tmp_path_factory.mktemp("real")
    synthetic.write_root(settings, root)
    collect(settings, root, root / "collected")
    compute_statistics(settings, root / "collected", root / "statistics")
    return root


@pytest.fixture(scope="module")
def frames(folder):
    return load_statistics(folder / "statistics")[0]


def test_the_premise_is_measured_against_the_other_rewards(frames):
    trends = frames["premise_summary"]
    assert set(trends["by"]) == {"overall", "group_mean"}, "ambiguity is not known"
    trends = trends[trends["measure"] == "gain"]
    overall = trends[trends["by"] == "overall"].set_index(["experiment", "reward"])["mean"]
    # The three rewards share the hidden truth with weight .7 each where it is reliable.
    assert overall["clear", "scenes_clear_a"] == pytest.approx(0.55, abs=0.08)
    assert overall["ambiguous", "scenes_ambiguous_a"] < overall["clear", "scenes_clear_a"] - 0.15
    rising = trends[trends["by"] == "group_mean"].set_index(["experiment", "reward"])
    row = rising.loc[("ambiguous", "scenes_ambiguous_a")]
    assert row["low"] > 0, "a low group mean gives the unreliable groups away"


def test_trust_is_measured_against_the_logged_rewards(frames, folder):
    summary = frames["trust_summary"]
    assert set(summary["reads"]) == {"weight", "deviation"}, "ambiguity is not known"
    summary = summary[(summary["measure"] == "gain") & (summary["reads"] == "weight")]
    summary = summary.set_index(["experiment", "arm"])
    assert summary.loc[("ambiguous", "bpgo_ras"), "low"] > 0
    assert np.isfinite(frames["trust"]["mean"]).all()


def test_claims_about_the_oracle_are_left_out(frames):
    claims = set(frames["claims"]["claim"])
    assert "truth" not in claims
    assert {"held_out", "overoptimization", "premise", "parts", "trust"} <= claims


def test_all_pages_are_made(settings, folder):
    make_tables(settings, folder / "statistics", folder / "tables")
    make_figures(settings, folder / "statistics", None, folder / "figures")
    page = folder / "report.html"
    make_report(settings, folder / "statistics", folder / "tables", folder / "figures", page)
    assert page.stat().st_size > 10_000
    assert all((folder / "tables" / f"{name}.md").is_file() for name in TABLES)
    assert all((folder / "figures" / f"{name}.png").is_file() for name in FIGURES)


def test_the_papers_rows_stand_under_our_columns(settings, folder):
    make_tables(settings, folder / "statistics", folder / "tables")
    lines = (folder / "tables" / "main.md").read_text().splitlines()
    [row] = {line for line in lines if line.startswith("| GRPO (paper) |")}
    assert row == "| GRPO (paper) | 1 | 0.2564 | 0.2242 | n/a |"


def test_a_task_that_the_paper_does_not_report_in_that_table(settings, folder):
    entry = settings.experiments["clear"]
    paper = entry.paper.model_copy(update={"task": "T2V"})
    experiments = {"clear": entry.model_copy(update={"paper": paper})}
    changed = settings.model_copy(update={"experiments": experiments})
    with pytest.raises(UserError, match=r"table2 has no task 'T2V'\. Known: T2I"):
        make_tables(changed, folder / "statistics", folder / "other")
