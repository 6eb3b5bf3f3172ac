"""Table, figure and page of the offline track."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bpgo.analysis.figures.offline import trust_rules
from bpgo.analysis.track import make_track
from bpgo.config.settings import Settings
from bpgo.errors import UserError
from bpgo.storage.seals import write_sealed
from bpgo.storage.tables import write_table

WORLDS = ("ambiguous", "clear")
GOOD = {"ambiguous": 1.0, "clear": -1.0}  # whether `mine` trusts the right groups
FILES = ["index.html", "trust.csv", "trust.md", "trust.pdf", "trust.png", "trust.tex"]


@pytest.fixture
def judged(tmp_path: Path) -> Path:
    """What `rules` writes of two worlds: `mine` is good in one, and `needy` has no row."""
    random, frames, notes = np.random.default_rng(0), [], []
    for world in WORLDS:
        gain = random.normal(0.3, 1, 200)
        for rule, weight in {"uniform": np.ones(200), "mine": 1 + 0.3 * GOOD[world] * gain}.items():
            frames.append(
                pd.DataFrame(
                    {
                        "experiment": world,
                        "source": "base",
                        "rule": rule,
                        "prompt_id": [f"p{row}" for row in range(200)],
                        "weight": weight,
                        "gain": weight * gain,
                        "square": weight**2,
                        "plain_gain": gain,
                        "plain_square": 1.0,
                        "gamma": np.sign(gain),
                    }
                )
            )
        for rule in ("uniform", "mine", "needy"):
            lacks = "needs the reward 'gold'" if rule == "needy" else ""
            labels = {"experiment": world, "source": "base", "rule": rule}
            notes.append({**labels, "lacks": lacks, "note": ""})
    folder = tmp_path / "judged"
    folder.mkdir()
    write_table(pd.concat(frames), folder / "judged.parquet")
    write_sealed(folder / "rules.json", {"notes": notes})
    return folder


def test_every_rule_has_a_row_in_every_world(
    settings: Settings, judged: Path, tmp_path: Path
) -> None:
    make_track(settings, judged, tmp_path / "trust")
    assert sorted(file.name for file in (tmp_path / "trust").iterdir()) == FILES
    data = pd.read_csv(tmp_path / "trust" / "trust.csv")
    assert {(row.experiment, row.rule) for row in data.itertuples()} == {
        (world, rule) for world in WORLDS for rule in ("uniform", "mine", "needy")
    }
    mine = data[data.rule == "mine"].set_index("experiment")
    assert mine.efficiency_low["ambiguous"] > 1
    assert mine.auroc["ambiguous"] == 1
    assert mine.efficiency_high["clear"] < 1
    assert mine.auroc["clear"] == 0
    text = (tmp_path / "trust" / "trust.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("| needy")]
    assert lines == ["| needy | n/a | n/a | needs the reward 'gold' |"] * 2
    page = (tmp_path / "trust" / "index.html").read_text()
    assert "needs the reward &#39;gold&#39;" in page
    assert "data:image/png;base64," in page
    assert settings.experiments["clear"].title in page


def test_bold_is_better_than_no_rule(settings: Settings, judged: Path, tmp_path: Path) -> None:
    make_track(settings, judged, tmp_path / "trust")
    text = (tmp_path / "trust" / "trust.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| mine")]
    assert ["**" in row for row in rows] == [True, False]


def test_equal_input_makes_equal_bytes(settings: Settings, judged: Path, tmp_path: Path) -> None:
    for name in ("first", "second"):
        make_track(settings, judged, tmp_path / name)
    for file in FILES:
        first, second = ((tmp_path / name / file).read_bytes() for name in ("first", "second"))
        assert first == second, file


def test_missing_or_cut_files(settings: Settings, judged: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"judged\.parquet: no such file; run `rules` first"):
        make_track(settings, tmp_path, tmp_path / "trust")
    file = judged / "judged.parquet"
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(
        UserError, match=r"judged\.parquet: cannot be read as Parquet: [^\n]+`rules` again"
    ):
        make_track(settings, judged, tmp_path / "trust")
    assert not (tmp_path / "trust").exists()


def test_a_figure_of_many_rules_and_worlds_keeps_them_apart() -> None:
    """No marker of a rule leaves the rule's row, and each rule has a name."""
    names = [f"rule_{number}" for number in range(14)]
    rows: list[dict[str, Any]] = [
        {"experiment": f"world_{world}", "source": "base", "rule": name, "lacks": "", "note": ""}
        for world in range(5)
        for name in names
    ]
    frame = pd.DataFrame(rows)
    for value in ("efficiency", "auroc"):
        frame[value] = np.linspace(0.4, 1.3, len(frame))
        frame[f"{value}_low"], frame[f"{value}_high"] = frame[value] - 0.1, frame[value] + 0.1
    figure = trust_rules(frame)
    left = figure.axes[0]
    assert sorted(label.get_text() for label in left.get_yticklabels()) == sorted(names)
    order = [label.get_text() for label in left.get_yticklabels()]
    for container in left.containers:
        places = container[0].get_ydata()
        assert np.abs(places - np.round(places)).max() < 0.5
        assert sorted(np.round(places)) == list(range(len(order)))
    frame["efficiency"] = 3.12
    assert "3.12 ▸" in [text.get_text() for text in trust_rules(frame).axes[0].texts]
    assert len({tuple(container[0].get_ydata()) for container in left.containers}) == 5
