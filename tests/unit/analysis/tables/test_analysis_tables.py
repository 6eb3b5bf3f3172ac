from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
import synthetic

from bpgo.analysis import TABLES, roles
from bpgo.analysis.statistics.differences import primary
from bpgo.analysis.tables.format import (
    Block,
    Cell,
    Table,
    escape_latex,
    escape_markdown,
    interval_text,
    number,
    to_latex,
    to_markdown,
)
from bpgo.analysis.tables.make import build_tables, make_tables
from bpgo.analysis.tables.paper import paper_block, paper_table
from bpgo.config.variants import value_text
from bpgo.errors import UserError


@pytest.fixture(scope="module")
def built(settings, frames, account):
    return {table.name: table for table in build_tables(settings, frames, account)}


def test_every_table_is_written_in_three_forms(settings, statistics, tmp_path):
    make_tables(settings, statistics, tmp_path)
    expected = {f"{name}.{suffix}" for name in TABLES for suffix in ("csv", "md", "tex")}
    assert {path.name for path in tmp_path.iterdir()} == expected
    main = pd.read_csv(tmp_path / "main.csv")
    assert {"mean", "low", "high", "iqm", "n_seeds", "to_reference_difference"} <= set(main)
    make_tables(settings, statistics, tmp_path / "again")
    for path in tmp_path.glob("*.*"):
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_bold_exactly_where_the_difference_is_better_in_all_of_the_column(settings, frames, built):
    gaps = frames["differences"]
    gaps = gaps[gaps["reference"] == "grpo"].set_index(["experiment", "arm", "reward"])
    for block, (experiment, entry) in zip(
        built["main"].blocks, settings.experiments.items(), strict=False
    ):
        rewards = settings.rewards_of(experiment)
        for arm, row in zip(["base", *entry.arms], block.rows, strict=True):
            for reward, cell in zip(rewards, row[2:], strict=True):
                if arm == "grpo":
                    assert not cell.bold
                    continue
                gap = gaps.loc[experiment, arm, reward]
                low, high = gap["simultaneous_low_sd"], gap["simultaneous_high_sd"]
                assert cell.bold == (low > 0 and high >= 0.1)
                assert cell.text.endswith("†") == (high < 0 and low <= -0.1)


def test_differences_say_their_unit_and_what_could_have_been_seen(frames, built):
    block = built["differences"].blocks[0]
    assert "in within-prompt base sd" in block.title
    gaps = frames["differences"].set_index(["experiment", "arm", "reference", "reward"])
    marked = set()
    for row in block.rows:
        arm = next(a for a, title in synthetic.TITLES.items() if title == row[0].text)
        gap = gaps.loc["ambiguous", arm, "grpo", "oracle"]
        cell = row[block.header.index("Oracle [main]")]
        marked.add(gap["verdict"])
        assert cell.bold == (gap["verdict"] in ("better", "worse"))
        assert cell.text.endswith("≈") == (gap["verdict"] == "equivalent")
        seen = f"seen from {gap['detectable_sd']:.2f}"
        assert (seen in cell.detail) == (gap["verdict"] == "not resolved")
    assert "not resolved" in marked


def test_the_declared_contrast_is_judged_by_its_own_interval(settings, frames, built):
    row = frames["primary"].set_index("experiment").loc["ambiguous"]
    assert (row["arm"], row["reference"], row["reward"]) == ("bpgo", "grpo", "oracle")
    assert row["low_sd"] > row["simultaneous_low_sd"]
    assert row["verdict"] == "better"
    [shown] = built["primary"].blocks[0].rows
    assert shown[1].text == "BPGO − GRPO, Oracle"
    assert shown[-1].text == "better"
    wide = settings.analysis.model_copy(update={"equivalence_margin": 2.0})
    changed = primary(settings.model_copy(update={"analysis": wide}), frames["differences"])
    assert list(changed["verdict"]) == ["equivalent"]


def test_a_declared_contrast_that_was_not_run_says_so(settings, frames, account):
    declared = settings.experiments["ambiguous"].primary.model_copy(update={"arm": "bpgo_crt"})
    entries = {"ambiguous": None, "clear": declared}
    experiments = {
        name: settings.experiments[name].model_copy(update={"primary": entry})
        for name, entry in entries.items()
    }
    changed = settings.model_copy(update={"experiments": experiments})
    lost = primary(changed, frames["differences"])
    assert lost.empty
    built = {t.name: t for t in build_tables(changed, {**frames, "primary": lost}, account)}
    [row] = built["primary"].blocks[0].rows
    assert [cell.text for cell in row[2:]] == ["0", *["not run"] * 5]


def test_collapsed_runs_are_named(settings, frames, account):
    gains = frames["gains"].copy()
    assert not gains["collapsed"].any()
    far = (gains["arm"] == "bpgo") & (gains["seed"] == 2) & (gains["prompts"] == "all")
    gains.loc[far & (gains["reward"] == "oracle"), "collapsed"] = True
    built = {t.name: t for t in build_tables(settings, {**frames, "gains": gains}, account)}
    assert "Collapsed runs (2)" in built["differences"].note
    assert "ambiguous/bpgo seed 2, clear/bpgo seed 2" in built["differences"].note


def test_missing_runs_are_named_in_the_note(built):
    for name in ("main", "differences", "parts", "sweep", "convergence"):
        assert "ambiguous/flow_grpo seed 2" in built[name].note


def test_an_arm_without_any_score_says_so(settings, frames, account):
    lost = {name: frame[frame["arm"] != "bpgo"] for name, frame in frames.items() if "arm" in frame}
    tables = {t.name: t for t in build_tables(settings, {**frames, **lost}, account)}
    row = next(row for row in tables["main"].blocks[0].rows if row[0].text == "BPGO")
    assert [cell.text for cell in row[1:]] == ["0", *["missing"] * 5]


def test_tables_say_units_intervals_and_n(built):
    note = built["main"].note
    for words in ("95%", "bootstrap", "seeds and prompts", "unit", "paired difference"):
        assert words in note
    assert built["main"].blocks[0].header[1] == "Seeds"
    assert "128 prompts" in built["main"].blocks[0].title


def test_sweep_runs_from_grpo_over_the_own_value(built):
    rows = built["sweep"].blocks[0].rows
    assert [row[0].text for row in rows] == ["0", "0.1", "0.5", "0.9"]


def test_parts_are_those_of_table_3(built):
    rows = built["parts"].blocks[0].rows
    assert [row[0].text for row in rows] == ["neither (GRPO)", "RAS", "CRT", "RAS + CRT (BPGO)"]


def test_paper_figures_keep_their_marks():
    block = paper_block("table1")
    assert block.foreign
    assert "one run each" in block.title
    cells = {(row[0].text, row[1].text): [c.text for c in row[2:]] for row in block.rows}
    assert cells["I2V", "GRPO"] == ["2.0713 (?)", "0.2307", "−1.8932", "0.6885 (?)"]
    assert cells["T2V", "BPGO"] == ["2.6788", "1.1193", "−0.0478", "0.6754"]
    uncertain = pd.concat(paper_table(f"table{k}") for k in (1, 2, 3, 4))["uncertain"]
    assert (uncertain == "yes").sum() == 3


def first_cells(rows):
    return [row[0].text for row in rows]


@pytest.mark.parametrize("task", ["t2v", "i2v"])
def test_the_papers_video_tables_stand_under_ours(task, settings, frames, account):
    tables = build_tables(synthetic.as_video(settings, task), frames, account)
    main, parts, sweep = ({t.name: t for t in tables}[n] for n in ("main", "parts", "sweep"))
    under = {row[0].text: [cell.text for cell in row[1:]] for row in main.blocks[0].rows}
    under |= {row[0].text: [cell.text for cell in row[1:]] for row in parts.blocks[0].rows}
    if task == "t2v":
        assert under["Wan2.1 base (paper)"][:4] == ["1", "2.6563", "1.0638", "0.0939"]
        assert under["RAS (paper)"] == ["1", "2.7042", "1.2327", "−0.4838", "n/a", "n/a"]
    else:
        assert under["GRPO (paper)"][:4] == ["1", "2.0713 (?)", "0.2307", "−1.8932"]
        assert under["CRT (paper)"][:4] == ["1", "2.0682 (?)", "0.2162", "−1.6573"]
    assert under["neither (GRPO; paper, Table 1)"] == under["GRPO (paper)"]
    assert under["RAS + CRT (paper)"] == under["BPGO (paper)"], "both tables report it"
    assert first_cells(parts.blocks[0].rows)[:4] == [
        "neither (GRPO)",
        "RAS",
        "CRT",
        "RAS + CRT (BPGO)",
    ]
    ours = ["0", "0.1", "0.5", "0.9"]
    papers = [f"{alpha} (paper)" for alpha in (0.1, 0.5, 0.7, 0.9)]
    papers = ["0 (GRPO; paper, Table 1)", *papers] if task == "t2v" else []
    assert first_cells(sweep.blocks[0].rows) == [*ours, *papers]
    assert [block.foreign for block in (*main.blocks, *parts.blocks)] == [False] * 3
    assert [block.foreign for block in sweep.blocks] == ([False] if papers else [False, True])
    assert "(?): readings of the paper differ" in main.note
    assert "(?): readings of the paper differ" in parts.note


@pytest.mark.parametrize(("task", "name"), [("t2v", "T2V"), ("i2v", "I2V")])
def test_a_made_up_video_world_shows_the_papers_rows_of_its_task(
    task, name, settings, frames, account
):
    tables = build_tables(synthetic.as_video(settings, task, paper=False), frames, account)
    for table in (table for table in tables if table.name in ("main", "parts")):
        block = table.blocks[-1]
        assert block.foreign
        assert set(first_cells(block.rows)) == {name}
    whole = next(table for table in tables if table.name == "paper")
    assert {row[0].text for row in whole.blocks[0].rows} == {"T2V", "I2V"}


def test_a_paper_table_with_other_columns_is_refused(tmp_path):
    (tmp_path / "table9.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="expected"):
        paper_table("table9", tmp_path)
    with pytest.raises(UserError, match="no such file"):
        paper_table("table8", tmp_path)


NASTY = r"50% of_a & b | {c} #1 $x$ ~ ^ \ <script> *bold* `code`"


def test_markdown_is_escaped():
    text = escape_markdown(NASTY)
    assert r"\|" in text
    assert r"\<script\>" in text
    assert r"\*bold\*" in text
    table = Table("t", NASTY, NASTY, [Block(NASTY, [NASTY, "B"], [[Cell(NASTY), Cell("1")]])])
    rows = [line for line in to_markdown(table).splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {3}


def test_latex_is_escaped():
    text = escape_latex(NASTY)
    assert r"50\% of\_a \& b" in text
    assert r"\{c\} \#1 \$x\$" in text
    assert r"\textbackslash{}" in text
    table = Table("t", NASTY, "", [Block(NASTY, [NASTY, "B"], [[Cell("−1†", "[0, 1]", True)] * 2])])
    latex = to_latex(table)
    assert r"\textbf{$-$1\dag{}} {\scriptsize {[}0, 1{]}}" in latex
    assert latex.count(r"\begin{tabular}{lr}") == latex.count(r"\end{tabular}") == 1
    bare = re.sub(r"\\[&%$#_{}]", "", latex.split(r"\toprule")[1].split(r"\bottomrule")[0])
    for line in bare.strip().splitlines():
        if "&" in line:
            assert line.count("&") == 1


def test_numbers_are_typeset():
    assert number(-0.5) == "−0.500"
    assert number(0.0001, signed=True) == "0.000"
    assert number(0.25, signed=True) == "+0.250"
    assert number(np.nan) == "n/a"
    assert interval_text(np.nan, np.nan) == "[n/a]"
    assert interval_text(-1, 2, signed=True, digits=1) == "[−1.0, +2.0]"


def test_a_world_without_sweeps_oracle_or_partners(settings, frames, account):
    plain = settings.model_copy(update={"sweeps": {}})
    empty = {"premise": pd.DataFrame(), "premise_summary": pd.DataFrame()}
    empty |= {"trust": pd.DataFrame(), "trust_summary": pd.DataFrame()}
    tables = {t.name: t for t in build_tables(plain, {**frames, **empty}, account)}
    assert "(no data)" in to_markdown(tables["premise"])
    assert "No sweep" in tables["sweep"].blocks[0].title


@pytest.mark.parametrize(
    ("setting", "swept", "labels", "title"),
    [
        ("training.learning_rate", [3e-5, 1e-3], ["3e-05", "0.0003", "0.001"], "learning_rate"),
        ("training.split", ["groups", "steps"], ["groups", "steps", "samples"], "split"),
    ],
)
def test_a_sweep_over_a_setting_of_the_configuration(
    settings, frames, account, setting, swept, labels, title
):
    changed, renamed = synthetic.swept_otherwise(settings, frames, setting, swept)
    before = {table.name: table for table in build_tables(settings, frames, account)}["sweep"]
    found = {table.name: table for table in build_tables(changed, renamed, account)}["sweep"]
    block = found.blocks[0]
    assert (found.title, block.header[0]) == ("Settings over their values", title)
    assert [row[0].text for row in block.rows] == labels
    scores = {row[0].text: row[2].text for row in before.blocks[0].rows}
    known = dict(zip([*map(value_text, swept)], (scores["0.1"], scores["0.9"]), strict=True))
    assert {row[0].text: row[2].text for row in block.rows}.items() >= known.items()
    assert (found.data["value"].isin([float(v) if title != "split" else v for v in labels])).all()
    assert not roles.is_alpha("model.lora.alpha")
    assert bool(roles.sweep_values(changed, "ambiguous", "bpgo_ras", setting)) == (title != "split")
