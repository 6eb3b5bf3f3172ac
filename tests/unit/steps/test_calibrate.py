"""Calibration: the base policy's rewards, and what a prior takes from them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from calibrated import draw_calibrate_judge
from tiny_world import ARMS, tiny_settings
from torch import Tensor

from bpgo.config.settings import Settings
from bpgo.errors import NonFiniteError, UserError
from bpgo.records import Calibration, Samples
from bpgo.scenes.image import oracle_reward as scenes_oracle
from bpgo.steps import draw as module
from bpgo.steps.calibrate import calibrate, summary
from bpgo.steps.prompts import read_prompts, write_prompts


@pytest.fixture(scope="module")
def root(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prompts and one calibration."""
    root = tmp_path_factory.mktemp("calibrate")
    settings = tiny_settings(tiny_folder)
    write_prompts(settings, "train", root / "prompts" / "train.jsonl")
    calibrated(settings, root, "first")
    return root


def calibrated(settings: Settings, root: Path, name: str) -> pd.DataFrame:
    draw_calibrate_judge(settings, "tiny", root / "prompts" / "train.jsonl", root / name)
    return pd.read_parquet(root / name / "samples.parquet")


def test_every_sample_of_every_reward(root: Path) -> None:
    table = pd.read_parquet(root / "first" / "samples.parquet")
    assert list(table.columns) == ["prompt_id", "ambiguity", "sample", "reward", "score", "cut"]
    prompts = read_prompts(root / "prompts" / "train.jsonl")[:3]
    expected = {
        (prompt, sample, reward)
        for prompt in prompts.ids
        for sample in range(2)
        for reward in ("oracle", "oracle_strict")
    }
    assert set(zip(table.prompt_id, table["sample"], table.reward, strict=True)) == expected
    assert len(table) == len(expected)
    ambiguities = dict(zip(prompts.ids, prompts.ambiguities, strict=True))
    assert all(row.ambiguity == ambiguities[row.prompt_id] for row in table.itertuples())
    assert table.score.notna().all()


def test_summary_is_of_the_training_reward(root: Path) -> None:
    table = pd.read_parquet(root / "first" / "samples.parquet")
    found = Calibration.load(root / "first" / "calibration.json")
    scores = table[table.reward == "oracle"].score
    assert found.mean == pytest.approx(scores.mean())
    assert found.std == pytest.approx(scores.std())
    assert found.minimum == scores.min()
    of_one = table[(table.reward == "oracle") & (table.prompt_id == table.prompt_id[0])]
    assert found.prompt_means[table.prompt_id[0]] == pytest.approx(of_one.score.mean())
    assert set(found.prompt_means) == set(table.prompt_id)


def with_arms(folder: Path, arms: list[str] | None = None, **changes: Any) -> Settings:
    """The tiny configuration with changes of single arms; the experiment has `arms`."""
    settings = tiny_settings(
        folder, arms={name: {**arm, **changes.get(name, {})} for name, arm in ARMS.items()}
    )
    entry = settings.experiments["tiny"].model_copy(update={"arms": arms or ["grpo"]})
    return settings.model_copy(update={"experiments": {"tiny": entry}})


@pytest.mark.parametrize("shared", [True, False])
def test_samples_have_noise_of_their_own_whatever_the_arm_has(
    shared: bool, root: Path, tiny_folder: Path
) -> None:
    settings = with_arms(tiny_folder, grpo={"shared_initial_noise": shared})
    table = calibrated(settings, root, f"shared_{shared}")
    pd.testing.assert_frame_equal(table, pd.read_parquet(root / "first" / "samples.parquet"))


def test_the_starts_of_a_group_differ(
    root: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, seen = module.rollout, []

    def watched(policy: Any, prompts: Any, noise: Tensor, *others: Any) -> Any:
        seen.append(noise)
        return real(policy, prompts, noise, *others)

    monkeypatch.setattr(module, "rollout", watched)
    calibrated(tiny_settings(tiny_folder), root, "watched")
    noise = torch.cat(seen)
    assert len(noise) == 3 * 2
    rows = noise.flatten(0, 1).flatten(1)  # every start, and every step's noise
    assert len(rows.unique(dim=0)) == len(rows)


def test_the_kernel_is_that_of_the_arm_that_others_are_compared_with(
    root: Path, tiny_folder: Path
) -> None:
    first = pd.read_parquet(root / "first" / "samples.parquet")
    both, louder = ["flow_grpo", "grpo"], {"noise_level": 0.9}
    deaf = calibrated(with_arms(tiny_folder, both, flow_grpo=louder), root, "deaf")
    pd.testing.assert_frame_equal(deaf, first)
    heard = calibrated(with_arms(tiny_folder, both, grpo=louder), root, "heard")
    assert not heard.score.equals(first.score)
    # An experiment without that arm is calibrated with its first one.
    other = calibrated(with_arms(tiny_folder, ["flow_grpo"]), root, "other")
    assert not other.score.equals(first.score)


def test_summary_by_hand() -> None:
    rows = pd.DataFrame({"prompt_id": ["a", "a", "b"], "score": [1.0, 3.0, 5.0]})
    assert summary(rows) == Calibration(3.0, 2.0, 1.0, {"a": 2.0, "b": 5.0})


def test_same_again_in_any_chunks(root: Path, tiny_folder: Path) -> None:
    first = pd.read_parquet(root / "first" / "samples.parquet")
    again = calibrated(tiny_settings(tiny_folder), root, "again")
    pd.testing.assert_frame_equal(first, again)
    small = calibrated(tiny_settings(tiny_folder, rollout={"batch_size": 2}), root, "small")
    key = ["reward", "prompt_id", "sample"]
    first, small = (t.sort_values(key, ignore_index=True) for t in (first, small))
    pd.testing.assert_frame_equal(first, small, atol=1e-4)


def test_too_few_prompts(root: Path, tiny_folder: Path) -> None:
    settings = tiny_settings(tiny_folder, calibration={"prompts": 7})
    with pytest.raises(UserError, match="holds 6 prompts, but 7 are needed"):
        calibrated(settings, root, "few")
    assert not (root / "few").exists()


def test_unknown_experiment(root: Path, tiny_folder: Path) -> None:
    with pytest.raises(UserError, match=r"'tinny' is unknown\. Did you mean 'tiny'\?"):
        prompts, draws = root / "prompts" / "train.jsonl", root / "first" / "draws" / "draws.json"
        calibrate(tiny_settings(tiny_folder), "tinny", prompts, draws, root)


def test_a_score_that_is_not_finite_names_the_prompt(
    root: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = scenes_oracle.ScenesOracle.__call__

    def spoilt(self: Any, samples: Samples) -> Tensor:
        scores = real(self, samples)
        scores[1] = math.nan
        return scores

    monkeypatch.setattr(scenes_oracle.ScenesOracle, "__call__", spoilt)
    with pytest.raises(NonFiniteError, match="reward 'oracle' gives nan for prompt 'train-00000'"):
        calibrated(tiny_settings(tiny_folder), root, "spoilt")
    assert not list((root / "spoilt").glob("*.*"))
    assert torch.get_num_threads() >= 1
