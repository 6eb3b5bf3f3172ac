"""Groups of the base policy: those of training, stored whole, read back checked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from calibrated import draw_calibrate_judge
from tiny_world import redness, tiny_settings

from bpgo.config.offline import groups_digest, members_of, scored_rewards, truth_of
from bpgo.config.resolve import default_configfile, load
from bpgo.config.runs import Run
from bpgo.config.settings import Settings
from bpgo.errors import UserError
from bpgo.scenes.image.oracle_reward import ScenesOracle
from bpgo.steps.group_table import read_groups, read_rollouts, save_groups
from bpgo.steps.groups import groups
from bpgo.steps.prompts import write_prompts
from bpgo.steps.train import train

NAMES = ["oracle", "oracle_strict"]


@pytest.fixture(scope="module")
def settings(tiny_folder: Path) -> Settings:
    entry = tiny_settings(tiny_folder).experiments["tiny"].model_dump()
    entry |= {"diagnostics": ["oracle_strict"], "arms": ["grpo", "bpgo"]}
    return tiny_settings(
        tiny_folder, experiments={"tiny": entry}, trust_groups={"seeds": [5], "iterations": 4}
    )


@pytest.fixture(scope="module", autouse=True)
def _every_sample_has_a_score_of_its_own() -> Iterator[None]:
    """The oracle finds no shape in what an untrained policy makes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ScenesOracle, "__call__", lambda self, samples: redness(samples))
        yield


@pytest.fixture(scope="module")
def root(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("groups")
    prompts = root / "prompts" / "train.jsonl"
    write_prompts(settings, "train", prompts)
    groups(settings, "grpo", 5, prompts, root / "seed_5.parquet")
    return root


def test_the_first_groups_are_a_run_s_own(settings: Settings, root: Path) -> None:
    """Before anything is learned: same prompts, same noise, same scores, to the bit."""
    draw_calibrate_judge(settings, "tiny", root / "prompts" / "train.jsonl", root / "calibration")
    run, folder = Run("tiny", "grpo", 5), root / "runs" / "tiny" / "grpo" / "seed_5"
    anchor = root / "calibration" / "calibration.json"
    train(settings, run, root / "prompts" / "train.jsonl", anchor, folder)
    logged = read_rollouts(folder / "rollouts.parquet", "oracle", ["oracle_strict"])
    drawn = read_groups(root / "seed_5.parquet", groups_digest(settings, "grpo"), NAMES)
    assert [batch.iteration for batch in drawn] == [1, 2, 3, 4]
    assert [batch.prompt_ids for batch in drawn] == [batch.prompt_ids for batch in logged]
    for name in NAMES:
        np.testing.assert_array_equal(drawn[0].scores[name], logged[0].scores[name])
    assert not np.array_equal(drawn[3].scores["oracle"], logged[3].scores["oracle"])


def test_a_table_of_samples(settings: Settings, root: Path) -> None:
    table = pd.read_parquet(root / "seed_5.parquet")
    assert list(table) == ["iteration", "prompt_id", "ambiguity", "sample", *NAMES]
    assert len(table) == 4 * 2 * 4
    epoch = table[table.iteration <= 3].groupby("prompt_id").size()
    assert set(epoch) == {4}, "six prompts in three iterations: each once"
    assert len(epoch) == 6
    groups(settings, "grpo", 5, root / "prompts" / "train.jsonl", root / "again.parquet")
    assert (root / "again.parquet").read_bytes() == (root / "seed_5.parquet").read_bytes()


def test_only_a_reference_arm_draws(settings: Settings, root: Path) -> None:
    with pytest.raises(UserError, match="--arm: 'bpgo' is no experiment's reference arm"):
        groups(settings, "bpgo", 5, root / "prompts" / "train.jsonl", root / "other.parquet")
    assert not (root / "other.parquet").exists()


def test_groups_of_other_settings_are_refused(settings: Settings, root: Path) -> None:
    other = settings.model_copy(
        update={"rollout": settings.rollout.model_copy(update={"steps": 5})}
    )
    with pytest.raises(UserError, match="made with other settings: its config_digest is"):
        read_groups(root / "seed_5.parquet", groups_digest(other, "grpo"), NAMES)


def test_files_that_are_missing_or_cut_have_one_message(settings: Settings, root: Path) -> None:
    digest, cut = groups_digest(settings, "grpo"), root / "cut.parquet"
    with pytest.raises(UserError, match=r"none\.parquet: no such file; run `groups` first"):
        read_groups(root / "none.parquet", digest, NAMES)
    cut.write_bytes((root / "seed_5.parquet").read_bytes()[:-100])
    with pytest.raises(UserError, match=r"cut\.parquet: cannot be read as Parquet: [^\n]+$"):
        read_groups(cut, digest, NAMES)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.drop(columns="oracle"), "has no column oracle"),
        (lambda table: table.iloc[:-1], "iteration 4 does not hold whole groups"),
        (lambda table: table.iloc[::-1], "iteration 1 does not hold whole groups"),
        (lambda table: table.assign(oracle=np.nan), "32 scores by oracle are NaN"),
    ],
)
def test_tables_that_are_not_whole_are_refused(
    change, message: str, settings: Settings, root: Path
) -> None:
    changed = change(pd.read_parquet(root / "seed_5.parquet"))
    save_groups(root / "changed.parquet", "digest", changed)
    with pytest.raises(UserError, match=f"changed.parquet: {message}"):
        read_groups(root / "changed.parquet", "digest", NAMES)


def test_the_default_scores_what_rules_may_read() -> None:
    settings = load(default_configfile())
    for world in ("ambiguous", "clear"):
        pools = [f"scenes_{world}_{pool}" for pool in "abc"]
        assert members_of(settings, world) == pools
        assert truth_of(settings, world) == "oracle"
        assert {*pools, "oracle"} <= set(scored_rewards(settings, "grpo"))


def test_without_an_oracle_there_is_no_truth(settings: Settings) -> None:
    blind = {
        name: entry.model_copy(update={"kind": "hpsv2"}) for name, entry in settings.rewards.items()
    }
    with pytest.raises(UserError, match=r"experiments\.tiny: no oracle is among"):
        truth_of(settings.model_copy(update={"rewards": blind}), "tiny")
