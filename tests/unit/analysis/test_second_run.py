"""Two results folders against each other, and a pilot's power: good ones and bad ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import synthetic

from bpgo.analysis.agree import agree_command
from bpgo.analysis.collect import collect
from bpgo.analysis.figures.make import make_figures
from bpgo.analysis.power import power_command
from bpgo.analysis.report import make_report
from bpgo.analysis.statistics.agreement import agreement, summarize
from bpgo.analysis.statistics.compute import compute_statistics
from bpgo.analysis.statistics.folders import load_results
from bpgo.analysis.tables.format import escape_markdown
from bpgo.config.resolve import load_resolved, save_resolved
from bpgo.errors import UserError
from bpgo.storage.files import repository_root

REFERENCE = repository_root() / "results" / "reference"
QUICK = {
    "arms": ("grpo", "bpgo", "bpgo_ras"),
    "clear": False,
    "sweep": (),
    "prompts": 64,
    "curve_prompts": 64,
    "iterations": 4,
    "snapshot_every": 4,
    "bootstrap_samples": 100,
}


def results(folder: Path, monkeypatch, **changes) -> Path:
    """A results folder of made-up runs, with its configuration as `config.yaml`."""
    settings = synthetic.make_settings(**{**QUICK, **changes})
    synthetic.write_root(settings, folder)
    collect(settings, folder, folder / "collected")
    (folder / "config.yaml").write_text("read by the stand-in")
    known[folder / "config.yaml"] = settings
    monkeypatch.setattr("bpgo.analysis.statistics.folders.load_resolved", known.__getitem__)
    return folder


known: dict[Path, object] = {}  # made-up arms have no files to be read back from


@pytest.fixture
def pair(tmp_path, monkeypatch):
    one = results(tmp_path / "one", monkeypatch)
    two = results(tmp_path / "two", monkeypatch, seeds=(11, 12, 13))
    return one, two


def test_two_runs_with_known_effects_agree(pair, tmp_path):
    text = agree_command(*pair, tmp_path / "out")
    expected = {f"agreement.{kind}" for kind in ("csv", "md", "tex", "png", "pdf")}
    assert {path.name for path in (tmp_path / "out").iterdir()} == expected
    rows = pd.read_csv(tmp_path / "out" / "agreement.csv")
    assert len(rows) == 2 * 5
    assert set(rows["arm"]) == {"bpgo", "bpgo_ras"}
    assert not rows["opposed"].any()
    assert float(summarize(rows)["correlation"].iloc[0]) > 0.9
    assert "How far they agree" in text
    assert escape_markdown(str(pair[1])) in text


def row(difference, half=0.1, verdict="not resolved", reward="oracle", arm="bpgo", df=12):
    return {
        **{"experiment": "ambiguous", "arm": arm, "reference": "grpo", "reward": reward},
        **{"role": "oracle", "difference_sd": difference, "n_seeds": 3, "df": df},
        **{"low_sd": difference - half, "high_sd": difference + half, "verdict": verdict},
    }


def test_agreement_by_hand(settings):
    first = [row(0.3, verdict="better"), row(0.0, arm="ras"), row(-0.3, arm="crt")]
    second = [row(-0.3, verdict="worse"), row(0.05, arm="ras"), row(0.3, arm="crt", half=1.0)]
    rows = agreement(settings, pd.DataFrame(first), pd.DataFrame(second), ("one", "two"))
    assert list(rows["same_verdict"]) == [False, True, True]
    assert list(rows["opposed"]) == [True, False, False]
    assert list(rows["second_outside"]) == [True, False, True]
    assert list(rows["first_outside"]) == [True, False, False]
    whole = summarize(rows).iloc[0]
    assert whole["correlation"] == pytest.approx(np.corrcoef([3, 0, -3], [-3, 0.5, 3])[0, 1])
    assert whole["outside"] == pytest.approx(3 / 6)
    assert (whole["same_verdict"], whole["opposed"]) == (2, 1)


def test_an_arm_that_lies_far_off_makes_no_correlation(settings):
    """Three arms that go opposite ways, and one on random rewards far below in both runs."""
    own = settings.analysis.model_copy(update={"own_variance": ["random_reward"]})
    far = row(-9.0, arm="random_reward")
    first = [row(0.1), row(0.0, arm="ras"), row(-0.1, arm="crt"), far]
    second = [row(-0.1), row(0.0, arm="ras"), row(0.1, arm="crt"), far]
    frames = pd.DataFrame(first), pd.DataFrame(second)
    rows = agreement(settings.model_copy(update={"analysis": own}), *frames, ("one", "two"))
    whole = summarize(rows).iloc[0]
    assert whole["correlation"] == pytest.approx(-1)
    assert whole["differences"] == 4, "it is compared all the same"
    assert summarize(agreement(settings, *frames, ("one", "two"))).iloc[0]["correlation"] > 0.99


def test_as_many_estimates_outside_as_chance_has_it(settings):
    """Equal normal errors: the other estimate is outside with P(|z| > 1.96 / sqrt 2) = 16.6 %."""
    random = np.random.default_rng(0)
    frames = [
        pd.DataFrame(
            [row(d, 1.96, arm=f"a{k}", df=1e6) for k, d in enumerate(random.normal(0, 1, 2000))]
        )
        for _ in range(2)
    ]
    whole = summarize(agreement(settings, *frames, ("one", "two"))).iloc[0]
    assert whole["expected"] == pytest.approx(0.166, abs=0.001)
    assert whole["outside"] == pytest.approx(whole["expected"], abs=0.02)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"iterations": 8, "snapshot_every": 8}, r"training\.iterations is 4 there and 8 here"),
        ({"arms": ("grpo", "bpgo")}, r"experiments\.ambiguous\.arms is \["),
        ({"prompts": 128}, r"prompts\.evaluation is 64 there and 128 here; only seeds may differ"),
    ],
)
def test_other_configurations_are_refused(changes, words, tmp_path, monkeypatch):
    one = results(tmp_path / "one", monkeypatch)
    two = results(tmp_path / "two", monkeypatch, **changes)
    with pytest.raises(UserError, match=words):
        agree_command(one, two, tmp_path / "out")


def in_world(file: Path, name: str | None) -> None:
    """Let a folder's results be of another set of weights of the embedded world."""
    settings = known[file]
    model = settings.model.model_copy(update={"path": f"{name}/policy", "content": name})
    rewards = {
        key: reward.model_copy(update={"content": name}) for key, reward in settings.rewards.items()
    }
    changes = {"world_weights": name, "model": model, "rewards": rewards}
    known[file] = settings.model_copy(update=changes)


def test_a_replicate_of_the_world_is_compared(pair, tmp_path):
    for folder, name in zip(pair, ("shipped", "replicate"), strict=True):
        in_world(folder / "config.yaml", name)
    assert "How far they agree" in agree_command(*pair, tmp_path / "out")


@pytest.mark.parametrize("names", [("one", None), (None, None)])
def test_another_model_is_no_replicate(names, pair, tmp_path):
    for folder, name in zip(pair, names, strict=True):
        in_world(folder / "config.yaml", name)
    settings = known[pair[0] / "config.yaml"]
    model = settings.model.model_copy(update={"path": "elsewhere"})
    known[pair[0] / "config.yaml"] = settings.model_copy(update={"model": model})
    with pytest.raises(UserError, match="not runs of one configuration"):
        agree_command(*pair, tmp_path / "out")


def test_another_margin_is_no_other_run(pair, tmp_path):
    settings = known[pair[1] / "config.yaml"]
    wide = settings.analysis.model_copy(update={"equivalence_margin": 0.5})
    known[pair[1] / "config.yaml"] = settings.model_copy(update={"analysis": wide})
    assert "How far they agree" in agree_command(*pair, tmp_path / "out")


def test_a_folder_that_holds_no_results_is_refused(pair, tmp_path):
    with pytest.raises(UserError, match="nowhere: no such folder"):
        agree_command(pair[0], tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"holds no collected scores: there is no .*runs\.json"):
        power_command(tmp_path / "empty")
    (pair[0] / "config.yaml").unlink()
    with pytest.raises(UserError, match=r"its configuration is neither .*config\.yaml nor"):
        power_command(pair[0])


def test_one_seed_is_refused(tmp_path, monkeypatch):
    one = results(tmp_path / "one", monkeypatch, seeds=(1,))
    with pytest.raises(UserError, match="one seed of each arm, so no intervals"):
        agree_command(one, one, tmp_path / "out")
    with pytest.raises(UserError, match="no two arms with two or more seeds in common"):
        power_command(one)


def test_nothing_in_common_is_refused(tmp_path, monkeypatch):
    one = results(tmp_path / "one", monkeypatch, arms=("grpo",))
    with pytest.raises(UserError, match="have no difference to 'grpo' in common"):
        agree_command(one, one, tmp_path / "out")


def test_power_of_a_pilot(pair, tmp_path):
    text = power_command(pair[0], 0.2, tmp_path / "out")
    assert "Seeds for 0.2" in text
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".csv", ".md", ".tex"}
    table = pd.read_csv(tmp_path / "out" / "power.csv")
    assert set(table["contrast"]) == {"arms", "base"}
    assert (table["seeds"] >= 2).all()


def test_the_report_shows_a_second_run(pair, tmp_path):
    settings = known[pair[0] / "config.yaml"]
    compute_statistics(settings, pair[0] / "collected", tmp_path / "statistics")
    make_figures(settings, tmp_path / "statistics", None, tmp_path / "figures")
    folders = (tmp_path / "statistics", tmp_path / "tables", tmp_path / "figures")
    make_report(settings, *folders, tmp_path / "alone.html")
    assert "Agreement of two runs" not in (tmp_path / "alone.html").read_text()
    make_report(settings, *folders, tmp_path / "option.html", second=pair[1])
    named = settings.analysis.model_copy(update={"second_run": str(pair[1])})
    changed = settings.model_copy(update={"analysis": named})
    make_report(changed, *folders, tmp_path / "key.html")
    for name in ("option", "key"):
        page = (tmp_path / f"{name}.html").read_text()
        assert 'id="figure-agreement"' in page
        assert "Agreement of two runs" in page


def test_the_published_folders_are_read(tmp_path):
    settings, data = load_results(REFERENCE / "scenes_i2v")
    assert set(data.scores) == set(settings.experiments)
    copy = tmp_path / "run"
    (copy / "collected").mkdir(parents=True)
    for file in (REFERENCE / "scenes_i2v" / "collected").iterdir():
        (copy / "collected" / file.name).write_bytes(file.read_bytes())
    digest = data.runs["config_digest"]
    save_resolved(settings, copy / "config" / f"{digest}.yaml")
    assert load_results(copy)[0] == load_resolved(REFERENCE / "scenes_i2v" / "config.yaml")
