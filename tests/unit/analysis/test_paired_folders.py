"""Two results folders of the same seeds, arm by arm: differences known by hand, and bad folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import synthetic
from numpy.testing import assert_allclose
from scipy import stats

from bpgo.analysis.agree import paired_command
from bpgo.analysis.collect import collect
from bpgo.analysis.statistics.data import Collected, Scores
from bpgo.analysis.statistics.folders import settings_between
from bpgo.analysis.statistics.paired import paired
from bpgo.config.settings import Settings
from bpgo.errors import UserError

NAMES = ("one", "two")
QUICK = {
    "arms": ("grpo", "bpgo"),
    "clear": False,
    "sweep": (),
    "prompts": 32,
    "curve_prompts": 32,
    "iterations": 4,
    "snapshot_every": 4,
    "bootstrap_samples": 100,
}


def made(**changes) -> Settings:
    return synthetic.make_settings(**{**QUICK, **changes})


def scores_of(runs: dict[str, np.ndarray], seeds: list[int], prompts: int = 4) -> Collected:
    """Scores by arm [S, P] at the end, of one reward; the base policy scores 0 and 2 by turns."""
    base = np.tile(np.arange(prompts) % 2 * 2.0, (len(seeds), 1))
    cube = np.stack([np.stack([base, table], axis=1) for table in runs.values()])
    whole = np.concatenate([np.stack([base, np.full_like(base, np.nan)], axis=1)[None], cube])
    cube = whole[:, :, :, None, :, None]
    names = [f"p{index}" for index in range(prompts)]
    rewards, arms = ["oracle"], ["base", *runs]
    scores = Scores("ambiguous", arms, seeds, [0, 4], rewards, names, cube)
    empty = pd.DataFrame()
    return Collected({"ambiguous": scores}, empty, empty, empty, {})


def test_a_difference_by_hand() -> None:
    """Two arms, three seeds, no prompt's part: the residual is all that is not arm or seed."""
    seeds, prompts = [1, 2, 3], 4
    means = {
        "first": {"grpo": [1.0, 2.0, 3.0], "bpgo": [2.0, 2.0, 5.0]},
        "second": {"grpo": [2.0, 2.0, 4.0], "bpgo": [3.0, 5.0, 6.0]},
    }
    one, two = (
        scores_of({arm: np.outer(row, np.ones(prompts)) for arm, row in part.items()}, seeds)
        for part in means.values()
    )
    rows = paired(made(), one, two, NAMES).set_index("arm")
    table = np.array([row for part in means.values() for row in part.values()])
    rest = table - table.mean(0) - table.mean(1, keepdims=True) + table.mean()
    df = (4 - 1) * (3 - 1)
    reach = np.sqrt(2 * (rest**2).sum() / df / 3) * stats.t.ppf(0.975, df)
    assert_allclose(
        rows.loc["grpo", ["difference", "low", "high"]].astype(float),
        [2 / 3 + k * reach for k in (0, -1, 1)],
    )
    assert_allclose(rows.loc["bpgo", "difference"], 5 / 3)
    assert rows.loc["bpgo", "df"] == df
    assert rows.loc["grpo", "improvement"] == (2 + 0.5) / 3
    assert rows.loc["bpgo", "comparisons"] == 2
    wider = rows["simultaneous_high"] - rows["high"]
    assert (wider[["grpo", "bpgo"]] > 0).all()
    assert rows.loc["base", "difference"] == 0
    assert np.isnan(rows.loc["base", "low"])
    spread = np.std([0, 0, 0, 2, 2, 2])  # no prompt differs over seeds: over all samples
    assert_allclose(rows.loc["bpgo", "difference_sd"], 5 / 3 / spread)


def test_only_the_same_seeds_pair() -> None:
    ones, twos = np.ones((2, 4)), np.full((2, 4), 2.0)
    one = scores_of({"grpo": np.stack([ones[0], twos[0] * 5])}, [1, 2])
    two = scores_of({"grpo": np.stack([twos[0], ones[0] * 9])}, [1, 3])
    rows = paired(made(), one, two, NAMES).set_index("arm")
    assert (rows.loc["grpo", "n_seeds"], rows.loc["grpo", "difference"]) == (1, 1.0)
    assert rows.loc["grpo", "verdict"] == "not resolved"
    with pytest.raises(UserError, match=r"one and two have no run in common.*`agree`"):
        paired(made(), one, scores_of({"grpo": ones}, [4, 5]), NAMES)
    with pytest.raises(UserError, match="one and two have no run in common"):
        paired(made(), one, scores_of({"bpgo": ones}, [1, 2]), NAMES)
    with pytest.raises(UserError, match=r"judged on other prompts, .* \(4 x 1 and 5 x 1\)"):
        paired(made(), one, scores_of({"grpo": np.ones((2, 5))}, [1, 2], 5), NAMES)


def test_settings_that_differ_are_named_and_other_judging_is_refused() -> None:
    first = made()
    training = first.training.model_copy(update={"learning_rate": 1e-3})
    second = made(arms=("grpo", "bpgo", "bpgo_ras")).model_copy(update={"training": training})
    assert settings_between(first, second, NAMES) == ["training.learning_rate: 0.0003 / 0.001"]
    assert settings_between(first, made(seeds=(1, 2)), NAMES) == []
    measured = first.evaluation.model_copy(update={"diversity_samples": 3})
    assert settings_between(first, first.model_copy(update={"evaluation": measured}), NAMES)
    for change, key in (
        ({"evaluation": first.evaluation.model_copy(update={"steps": 3})}, "evaluation.steps is 8"),
        ({"prompts": first.prompts.model_copy(update={"seed": 3})}, "prompts.seed is 0"),
        (
            {"model": first.model.model_copy(update={"evaluation_schedule": "flux"})},
            "model.evaluation_schedule is None",
        ),
        (
            {"rollout": first.rollout.model_copy(update={"guidance_scale": 2.0})},
            "evaluation.guidance_scale is 1.0 there and 2.0 here",
        ),
    ):
        with pytest.raises(UserError, match=f"one and two are judged otherwise, .*: {key}"):
            settings_between(first, first.model_copy(update=change), NAMES)


def test_the_command_writes_a_table(tmp_path: Path, monkeypatch) -> None:
    known = {}
    monkeypatch.setattr("bpgo.analysis.statistics.folders.load_resolved", known.__getitem__)
    for name in NAMES:
        settings, folder = made(), tmp_path / name
        synthetic.write_root(settings, folder)
        collect(settings, folder, folder / "collected")
        (folder / "config.yaml").write_text("read by the stand-in")
        known[folder / "config.yaml"] = settings
    text = paired_command(*(tmp_path / name for name in NAMES), tmp_path / "out")
    found = {path.name for path in (tmp_path / "out").iterdir()}
    assert found == {f"paired.{kind}" for kind in ("csv", "md", "tex")}
    assert "Settings in which they differ: none" in text
    assert "untrained policy's scores are equal" in text
    rows = pd.read_csv(tmp_path / "out" / "paired.csv")
    assert set(rows["arm"]) == {"base", "grpo", "bpgo"}
    assert (rows["difference"] == 0).all()  # made alike
    assert (rows["improvement"] == 0.5).all()
    with pytest.raises(UserError, match="nowhere: no such folder"):
        paired_command(tmp_path / "one", tmp_path / "nowhere", tmp_path / "other")
    assert not (tmp_path / "other").exists()
