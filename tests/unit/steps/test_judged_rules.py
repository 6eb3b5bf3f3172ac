"""What rules make of stored groups, with answers known without the code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from scipy.stats import spearmanr
from tiny_world import tiny_settings

from bpgo import registry
from bpgo.config.offline import groups_digest
from bpgo.config.resolve import default_configfile, load_rules
from bpgo.config.settings import Settings
from bpgo.core.trust import TrustSettings, make_trust
from bpgo.errors import UserError
from bpgo.records import AdvantageResult, Calibration, GroupRewards, WeightedAdvantage
from bpgo.registry import load_trust_class
from bpgo.seeding import generator
from bpgo.steps.group_table import save_groups
from bpgo.steps.rules import contributions, net_advantage, rules
from bpgo.storage.files import read_json

SUM = {"kind": "weighted_sum", "title": "Both", "parts": {"red": 1.0, "blue": 3.0}}
MODEL = {"kind": "scenes_preference", "world": "ambiguous"}
REWARDS: dict[str, Any] = {
    "oracle": {"kind": "scenes_oracle", "title": "Oracle"},
    "red": {**MODEL, "title": "Red", "pool": "a"},
    "blue": {**MODEL, "title": "Blue", "pool": "b"},
    "both": SUM,
}
ITERATIONS, PROMPTS, GROUP = 10, 2, 4


def rule(name: str, **values: Any) -> TrustSettings:
    found: TrustSettings = load_trust_class(name).Settings.model_validate({"rule": name, **values})
    return found


@pytest.fixture
def world(tiny_folder: Path, tmp_path: Path) -> Callable[..., Settings]:
    """Settings whose groups and calibration lie in `tmp_path`."""

    def make(training: str = "red", judges: tuple[str, ...] = ("oracle",)) -> Settings:
        entry = {"title": "T", "training_reward": training, "judges": list(judges)}
        entry |= {"diagnostics": ["oracle"], "arms": ["grpo"], "seeds": [1]}
        settings = tiny_settings(
            tiny_folder,
            experiments={"tiny": entry},
            rewards=REWARDS,
            trust_groups={"seeds": [1], "iterations": ITERATIONS},
        )
        path = tmp_path / "trust" / "groups" / "grpo" / "seed_1.parquet"
        save_groups(path, groups_digest(settings, "grpo"), made_up())
        parts = {name: {"mean": 0.5, "std": 2.0} for name in ("red", "blue")}
        means = {f"p{prompt}": 0.1 * prompt for prompt in range(6)}
        anchor = Calibration(0.2, 1.5, -5.0, means, parts)
        anchor.save(tmp_path / "calibration" / "tiny" / "calibration.json")
        return settings

    return make


def made_up(ambiguity: float = 0.5) -> pd.DataFrame:
    """Groups in the order of training; the rewards follow the oracle in some."""
    random = np.random.default_rng(0)
    count = ITERATIONS * PROMPTS * GROUP
    oracle = random.integers(0, 4, count) / 4
    return pd.DataFrame(
        {
            "iteration": np.repeat(np.arange(1, ITERATIONS + 1), PROMPTS * GROUP),
            "prompt_id": [f"p{row // GROUP % 6}" for row in range(count)],
            "ambiguity": ambiguity,
            "sample": [row % GROUP for row in range(count)],
            "oracle": oracle.astype(np.float32),
            "red": (oracle + random.normal(0, 0.7, count)).astype(np.float32),
            "blue": (oracle + random.normal(0, 0.7, count)).astype(np.float32),
        }
    )


def judged(
    settings: Settings, folder: Path, known: dict[str, TrustSettings], runs: tuple[Path, ...] = ()
) -> tuple[pd.DataFrame, dict[tuple[str, str], dict[str, str]]]:
    """The rows, and what is said of each (source, rule)."""
    rules(settings, known, folder, list(runs), folder / "judged")
    notes = read_json(folder / "judged" / "rules.json")["notes"]
    table = pd.read_parquet(folder / "judged" / "judged.parquet")
    return table, {(note["source"], note["rule"]): note for note in notes}


def of(table: pd.DataFrame, name: str) -> pd.DataFrame:
    return table[table.rule == name].reset_index(drop=True)


def by_group(column: str) -> np.ndarray:
    return made_up()[column].to_numpy(float).reshape(-1, GROUP)


def test_no_rule_changes_nothing(world: Callable[..., Settings], tmp_path: Path) -> None:
    table, notes = judged(world(), tmp_path, {})
    assert list(notes) == [("base", "uniform")]
    assert len(table) == ITERATIONS * PROMPTS
    np.testing.assert_allclose(table.weight, 1)
    np.testing.assert_array_equal(table.gain, table.plain_gain)
    np.testing.assert_array_equal(table.square, table.plain_square)
    red, oracle = by_group("red"), by_group("oracle")
    centred = red - red.mean(axis=1, keepdims=True)
    advantage = centred / red.std(axis=1, keepdims=True, ddof=1)
    gain = (advantage * oracle).mean(axis=1)
    np.testing.assert_allclose(table.gain, gain, rtol=2e-3, atol=1e-6)
    assert table.base_mean.tolist() == [0.1 * int(prompt[1:]) for prompt in table.prompt_id]


def test_weights_are_the_rule_s_own(world: Callable[..., Settings], tmp_path: Path) -> None:
    known = {"truth": rule("true_reliability", reward="oracle", alpha=0.5)}
    table, notes = judged(world(), tmp_path, known)
    pairs = zip(by_group("red"), by_group("oracle"), strict=True)
    expected = [1 + 0.5 * np.nan_to_num(spearmanr(*pair)[0]) for pair in pairs]
    found = of(table, "truth")
    np.testing.assert_allclose(found.weight, expected, atol=1e-6)
    np.testing.assert_allclose(found.gain, found.weight * found.plain_gain, atol=1e-6)
    np.testing.assert_allclose(found.square, found.weight**2 * found.plain_square, atol=1e-6)
    assert notes["base", "truth"]["note"] == "reads oracle"


def test_a_moving_average_sees_the_groups_in_the_order_of_training(
    world: Callable[..., Settings], tmp_path: Path
) -> None:
    settings = rule("bpgo", crt="off", reward_scale="raw", k=1.0)
    table, _ = judged(world(), tmp_path, {"ras": settings})
    red = by_group("red")
    average, expected = 0.2, []
    for start in range(0, len(red), PROMPTS):
        batch = red[start : start + PROMPTS]
        gap = (batch.mean(axis=1) - average) / 1.5
        expected += (1 + 0.5 * (2 / (1 + np.exp(-gap)) - 1)).tolist()
        average = 0.9 * average + 0.1 * batch.mean()
    np.testing.assert_allclose(of(table, "ras").weight, expected, atol=1e-5)


def test_a_rule_that_needs_more_says_so_and_others_have_rows(
    world: Callable[..., Settings], tmp_path: Path
) -> None:
    known = {
        "agreement": rule("agreement"),
        "gate": rule("gardo", share=0.1, step=0.1, lowest=0.02, highest=0.2, window=3),
        "other_truth": rule("true_reliability", reward="gold", alpha=1.0),
        "first_frame": rule("bpgo", prior="first_frame", crt="off"),
        "deviation": rule("deviation"),
    }
    table, notes = judged(world(), tmp_path, known)
    assert set(table.rule) == {"uniform", "deviation"}
    lacks = {name: note["lacks"] for (_, name), note in notes.items()}
    assert lacks["agreement"] == "needs two rewards or more that make an ensemble"
    assert lacks["gate"] == lacks["agreement"]
    assert lacks["other_truth"] == "needs the reward 'gold'"
    assert "first_frame" in lacks["first_frame"]
    assert lacks["deviation"] == lacks["uniform"] == ""


def test_ambiguity_that_nobody_knows_is_lacking(
    world: Callable[..., Settings], tmp_path: Path
) -> None:
    settings = world()
    path = tmp_path / "trust" / "groups" / "grpo" / "seed_1.parquet"
    save_groups(path, groups_digest(settings, "grpo"), made_up(np.nan))
    _, notes = judged(settings, tmp_path, {"specified": rule("specified", alpha=0.5)})
    assert notes["base", "specified"]["lacks"] == "needs prompts that say how ambiguous they are"


def test_learned_judges_make_the_ensemble_of_a_reward_that_is_no_sum(
    world: Callable[..., Settings], tmp_path: Path
) -> None:
    known = {"agreement": rule("agreement"), "mean": rule("pessimistic", beta=1e9)}
    table, notes = judged(world(judges=("blue", "oracle")), tmp_path, known)
    red, blue = by_group("red"), by_group("blue")
    raw = [max(0, spearmanr(*pair)[0]) for pair in zip(red, blue, strict=True)]
    pairs = np.reshape(raw, (-1, PROMPTS))
    means = pairs.mean(axis=1, keepdims=True)
    expected = np.where(means > 0, pairs / np.where(means > 0, means, 1), 1).ravel()
    np.testing.assert_allclose(of(table, "agreement").weight, expected, atol=1e-5)
    # A huge beta leaves the members' mean as it is: that is what it is compared with.
    mean = of(table, "mean")
    np.testing.assert_allclose(mean.weight, 1, atol=1e-3)
    assert not np.allclose(mean.plain_gain, of(table, "uniform").plain_gain, atol=1e-3)
    assert notes["base", "mean"]["note"] == "trains on the members' mean"


def test_a_sum_is_trained_on_as_it_is(world: Callable[..., Settings], tmp_path: Path) -> None:
    known = {"worst": rule("pessimistic", beta=0.0)}
    table, notes = judged(world("both"), tmp_path, known)
    assert notes["base", "worst"]["note"] == ""
    total = by_group("red") + 3 * by_group("blue")
    centred = total - total.mean(axis=1, keepdims=True)
    advantage = centred / total.std(axis=1, keepdims=True, ddof=1)
    gain = (advantage * by_group("oracle")).mean(axis=1)
    np.testing.assert_allclose(of(table, "uniform").gain, gain, rtol=2e-3, atol=1e-6)
    np.testing.assert_allclose(of(table, "worst").plain_gain, gain, rtol=2e-3, atol=1e-6)


def test_groups_of_a_trained_run_join(world: Callable[..., Settings], tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "tiny" / "grpo" / "seed_7"
    folder.mkdir(parents=True)
    logged = made_up().drop(columns="blue").rename(columns={"red": "reward"})
    logged.to_parquet(folder / "rollouts.parquet")
    known = {"deviation": rule("deviation"), "agreement": rule("agreement")}
    settings = world(judges=("blue", "oracle"))
    table, notes = judged(settings, tmp_path, known, (folder,))
    base, run = (of(table[table.source == name], "deviation") for name in ("base", "grpo"))
    np.testing.assert_array_equal(base.gain, run.gain)
    assert set(run.seed) == {7}
    assert notes["base", "agreement"]["lacks"] == ""
    assert notes["grpo", "agreement"]["lacks"].startswith("needs two rewards")


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("runs/tiny/grpo/seed_9", r"rollouts\.parquet: no such file"),
        ("runs/tinny/grpo/seed_1", r"must end in EXPERIMENT/ARM/seed_N.*Did you mean 'tiny'"),
        ("runs/tiny/grpo/last", "must end in EXPERIMENT/ARM/seed_N"),
    ],
)
def test_runs_that_are_none(
    folder: str, message: str, world: Callable[..., Settings], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        judged(world(), tmp_path, {}, (tmp_path / folder,))
    assert not (tmp_path / "judged").exists()


def test_too_few_groups(world: Callable[..., Settings], tmp_path: Path) -> None:
    settings = world()
    path = tmp_path / "trust" / "groups" / "grpo" / "seed_1.parquet"
    few = made_up()
    save_groups(path, groups_digest(settings, "grpo"), few[few.iteration <= 3])
    with pytest.raises(UserError, match=r"'tiny' has 6 groups drawn by 'base', and 8 are"):
        judged(settings, tmp_path, {})


def test_a_new_rule_has_a_row_by_itself(
    world: Callable[..., Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Python file and a YAML file, and its line in the registry."""
    code = tmp_path / "first_sample.py"
    code.write_text(
        "from typing import Literal\n"
        "from bpgo.core.trust import Trust, Trusted, TrustSettings\n"
        "class Settings_(TrustSettings):\n"
        "    rule: Literal['first_sample'] = 'first_sample'\n"
        "class TRUST(Trust):\n"
        "    Settings = Settings_\n"
        "    def judge(self, groups, generator):\n"
        "        return Trusted(groups.rewards[:, 0].double().abs())\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(registry.TRUST, "first_sample", "first_sample")
    config = tmp_path / "config"
    (config / "trust").mkdir(parents=True)
    (config / "mine.yaml").write_text("title: mine\n")
    (config / "trust" / "mine.yaml").write_text(yaml.safe_dump({"rule": "first_sample"}))
    table, _ = judged(world(), tmp_path, load_rules(config / "mine.yaml"))
    assert set(table.rule) == {"uniform", "mine"}
    np.testing.assert_allclose(
        of(table, "mine").weight, np.abs(by_group("red")[:, 0]), rtol=1e-4, atol=1e-6
    )


def test_other_files_of_its_folder_stay(world: Callable[..., Settings], tmp_path: Path) -> None:
    (tmp_path / "judged").mkdir()
    (tmp_path / "judged" / "thesis.txt").write_text("years of work")
    for _ in range(2):
        judged(world(), tmp_path, {})
    assert (tmp_path / "judged" / "thesis.txt").read_text() == "years of work"
    assert len(list((tmp_path / "judged").iterdir())) == 3


def test_a_rule_is_what_the_configuration_makes_of_it(tmp_path: Path) -> None:
    folder = default_configfile().parent
    shipped = load_rules(default_configfile())
    assert set(shipped) == {file.stem for file in (folder / "trust").glob("*.yaml")}
    video = load_rules(folder / "scenes_t2v.yaml")
    assert (shipped["bpgo_ras"].prior, video["bpgo_ras"].prior) == ("moving_average", "sft_mean")
    assert video["anti"].of.reward == "video_oracle"


def test_terms_add_up() -> None:
    first, second = torch.tensor([[1.0, -1.0]]), torch.tensor([[[2.0, 4.0], [0.0, -2.0]]])
    terms = [
        WeightedAdvantage(1.0, first, scale=torch.tensor([[0.5, 0.5]])),
        WeightedAdvantage(0.25, second, over="step"),  # means over steps: 3, -1
    ]
    found = net_advantage(AdvantageResult(terms))
    assert found.tolist() == [[0.5 + 0.75, -0.5 - 0.25]]


def test_contributions_by_hand() -> None:
    plain = torch.tensor([[1.0, -1.0], [0.0, 0.0]]).double()
    given = torch.tensor([[3.0, 1.0], [0.0, 0.0]]).double()
    oracle = torch.tensor([[5.0, 3.0], [1.0, 1.0]]).double()
    found = {name: column.tolist() for name, column in contributions(plain, given, oracle).items()}
    assert found["weight"][0] == 1.0, "(3 - 1) / 2 of the samples' square sum 2 / 2"
    assert np.isnan(found["weight"][1])
    assert found["gain"] == [1.0, 0.0]
    assert found["square"] == [5.0, 0.0]
    assert found["plain_gain"] == [1.0, 0.0]
    assert found["plain_square"] == [1.0, 0.0]


def test_the_rule_s_own_answer_is_asked_for(world: Callable[..., Settings], tmp_path: Path) -> None:
    """The weights are those that `judge` gives for the same records."""
    settings = rule("specified", alpha=0.5)
    table, _ = judged(world(), tmp_path, {"specified": settings})
    groups = GroupRewards(torch.zeros(1, 2), ["p0"], ambiguity=torch.tensor([0.5]))
    answer = make_trust(settings).judge(groups, generator(0)).weights
    assert answer is not None
    np.testing.assert_allclose(of(table, "specified").weight, float(answer), atol=1e-6)
