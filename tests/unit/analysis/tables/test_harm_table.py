"""Harm in tables, figures and the report: what was measured, and what stored scores lack."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import synthetic

from bpgo.analysis.collect import collect
from bpgo.analysis.figures.make import DRAW
from bpgo.analysis.harm_words import harm_sentences
from bpgo.analysis.statistics.compute import compute_statistics, load_statistics
from bpgo.analysis.tables.format import to_latex, to_markdown
from bpgo.analysis.tables.make import build_tables
from bpgo.storage.files import read_json, write_json
from bpgo.storage.seals import SEAL

PACE = {"grpo": 2.0, "bpgo": 1.0}
STEPS = (2, 4)


@pytest.fixture(scope="module")
def settings():
    return synthetic.make_settings(
        arms=("grpo", "bpgo"),
        clear=False,
        sweep=(),
        prompts=32,
        curve_prompts=32,
        iterations=4,
        snapshot_every=2,
        bootstrap_samples=100,
    )


@pytest.fixture(scope="module")
def collected(settings, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("harm")
    synthetic.write_root(settings, root)
    collect(settings, root, root / "collected")
    return root / "collected"


def statistics_of(settings, collected, output, rows):
    columns = ["arm", "seed", "iteration", "measure", "prompt_id", "value"]
    table = pd.DataFrame(rows, columns=columns).assign(experiment="ambiguous")
    synthetic.put_collected(table, collected, "harm")
    compute_statistics(settings, collected, output)
    return load_statistics(output)


@pytest.fixture(scope="module")
def measured(settings, collected, tmp_path_factory):
    rows = []
    for seed in (1, 2, 3):
        for prompt in ("e0000", "e0001"):
            rows.append(("base", seed, 0, "vendi", prompt, 4.0 + 0.01 * seed))
            for arm, pace in PACE.items():
                for step in STEPS:
                    rows.append((arm, seed, step, "kl", prompt, (0.1 * pace * step) ** 2))
                rows.append((arm, seed, 4, "vendi", prompt, 4.0 - pace + 0.01 * seed))
        rows += [(arm, seed, 4, "kid", "", pace / 1000) for arm, pace in PACE.items()]
    return statistics_of(settings, collected, tmp_path_factory.mktemp("with"), rows)


def table_of(settings, found):
    frames, account = found
    [table] = [table for table in build_tables(settings, frames, account) if table.name == "harm"]
    return table


def test_levels_differences_and_marks(settings, measured):
    frame = measured[0]["harm"].set_index(["arm", "measure"])
    assert frame.loc[("grpo", "divergence"), "mean"] == pytest.approx(0.8)
    assert frame.loc[("bpgo", "kid"), "mean"] == pytest.approx(0.001)
    row = frame.loc[("bpgo", "vendi")]
    assert row["mean"] == pytest.approx(3.02)
    assert row["to_reference_difference"] == pytest.approx(1)
    assert row["to_base_difference"] == pytest.approx(-1)
    assert frame.loc[("base", "vendi"), "mean"] == pytest.approx(4.02)
    block = table_of(settings, measured).blocks[0]
    cells = {row[0].text: dict(zip(block.header, row, strict=True)) for row in block.rows}
    assert list(cells) == ["Base", "GRPO", "BPGO"]
    assert cells["BPGO"]["Vendi score"].text == "3.02"
    assert cells["BPGO"]["Vendi score"].bold
    assert cells["BPGO"]["KID × 1000"].text == "1.00"
    assert cells["Base"]["√KL to base"].text == "n/a"
    latex = to_latex(table_of(settings, measured))
    assert r"$\surd$KL" in latex


def test_what_stored_scores_lack_is_left_out(settings, collected, tmp_path):
    found = statistics_of(settings, collected, tmp_path / "without", [])
    text = to_markdown(table_of(settings, found))
    assert "Worst tenth" in text
    assert "Turning point" in text
    for absent in ("| √KL", "| Vendi", "| KID", "| at equal divergence"):
        assert absent not in text
    (
        collected / "harm.parquet"
    ).unlink()  # as an earlier version, which listed no files, had left it
    account = read_json(collected / "runs.json")
    write_json(
        collected / "runs.json",
        {key: value for key, value in account.items() if key not in ("files", SEAL)},
    )
    compute_statistics(settings, collected, tmp_path / "old")
    assert to_markdown(table_of(settings, load_statistics(tmp_path / "old"))) == text
    figure = DRAW["path"](settings, found[0])
    assert [text.get_text() for text in figure.axes[0].texts] == [
        "The divergence from the base policy was not measured."
    ]


def test_a_main_metric_without_turning_points_has_its_figure(settings, measured):
    """As where it is the training reward itself."""
    frames = dict(measured[0])
    frames["turning"] = frames["turning"].iloc[:0, :0]
    figure = DRAW["path"](settings, frames)
    assert len(figure.axes) == 2


def test_figures_have_a_panel_a_measure(settings, measured):
    figure = DRAW["path"](settings, measured[0])
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "ambiguous\ntraining reward",
        "Oracle",
    ]
    assert len(figure.axes[1].texts) == 2, "an arm's name at the end of its curve"
    figure = DRAW["harm"](settings, measured[0])
    assert len(figure.axes) == 7, "all but the distance, which was not measured"


def test_the_report_says_it(settings, measured):
    [sentence] = harm_sentences(settings, measured[0])
    assert sentence.startswith("Scenes, ambiguous world. ")
    assert "GRPO changes the effective number of different ones (Vendi score) by −2.00" in sentence
    assert "other seeds harm most" in sentence
    empty = {name: pd.DataFrame() for name in ("harm", "turning")}
    assert harm_sentences(settings, empty) == []
