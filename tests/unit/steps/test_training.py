"""One run from files to files, as a workflow's job makes it."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from calibrated import draw_calibrate_judge
from tiny_world import ARMS, tiny_settings
from torch import Tensor

from bpgo.config.runs import Run
from bpgo.config.settings import Settings
from bpgo.config.variants import SweepSettings
from bpgo.errors import RunInterruptedError, UserError
from bpgo.records import Samples
from bpgo.run.progress import read_lines
from bpgo.scenes.image import oracle_reward as scenes_oracle
from bpgo.steps import train as training
from bpgo.steps.prompts import read_prompts, write_prompts
from bpgo.steps.sample import sample_base, sample_run
from bpgo.steps.score import score_run
from bpgo.storage.files import read_json, sha256

METRICS = {
    "iteration",
    "reward_mean",
    "reward_std",
    "group_std",
    "loss",
    "gradient_norm",
    "clip_fraction",
    "ratio_deviation",
    "groups_dropped",
    "rollout_passes",
    "trained_passes",
    "other_passes",
    "seconds",
    "rollout_seconds",
    "reward_seconds",
    "update_seconds",
}
STEPS_WITH_NOISE = (0, 1, 2)
ROLLOUTS = [
    "iteration",
    "prompt_id",
    "ambiguity",
    "sample",
    "reward",
    "advantage",
    "prior",
    "weight",
    "oracle_strict",
]


@pytest.fixture(scope="module")
def settings(tiny_folder: Path) -> Settings:
    experiment = tiny_settings(tiny_folder).experiments["tiny"].model_dump()
    changes = {"arms": list(ARMS), "diagnostics": ["oracle_strict"]}
    return tiny_settings(tiny_folder, experiments={"tiny": experiment | changes})


@pytest.fixture(scope="module")
def root(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prompts, a calibration and a run of BPGO."""
    root = tmp_path_factory.mktemp("training")
    for split in ("train", "evaluation"):
        write_prompts(settings, split, root / "prompts" / f"{split}.jsonl")
    draw_calibrate_judge(settings, "tiny", root / "prompts" / "train.jsonl", root / "calibration")
    train(settings, root, "bpgo")
    return root


def train(settings: Settings, root: Path, arm: str, name: str = "") -> Path:
    output = root / "runs" / (name or arm)
    training.train(
        settings,
        Run("tiny", arm, 1),
        root / "prompts" / "train.jsonl",
        root / "calibration" / "calibration.json",
        output,
    )
    return output


def test_what_a_run_leaves(root: Path) -> None:
    assert {path.name for path in (root / "runs" / "bpgo").iterdir()} == {
        "policy",
        "snapshots",
        "metrics.jsonl",
        "metrics.parquet",
        "rollouts.jsonl",
        "rollouts.parquet",
        "manifest.json",
        "tensorboard",
        ".lock",
    }
    assert (root / "embeddings").is_dir()


def test_tensorboard_shows_samples_at_the_start_and_of_each_kept_policy(
    root: Path, settings: Settings
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(root / "runs" / "bpgo" / "tensorboard"))
    found.Reload()
    steps = [image.step for image in found.Images("samples")]
    assert steps == sorted({1, *settings.training.stages()})


def test_metrics(root: Path) -> None:
    table = pd.read_parquet(root / "runs" / "bpgo" / "metrics.parquet")
    assert set(table.columns) >= METRICS
    assert table.iteration.tolist() == [1, 2, 3, 4]
    assert table[sorted(METRICS)].notna().all().all()


def test_first_ratios_are_logged_by_step(root: Path) -> None:
    """An iteration trains 2 of the 3 steps with noise, or none, if both its groups are dropped."""
    trained = []
    for entry in read_lines(root / "runs" / "bpgo" / "metrics.jsonl"):
        found = {name: value for name, value in entry.items() if name.startswith("first_")}
        steps = {int(name.rsplit("_", 1)[1]) for name in found if "_mean_" in name}
        trained.append(len(steps))
        assert len(steps) == (0 if entry["groups_dropped"] == 2 else 2)
        assert steps <= set(STEPS_WITH_NOISE)
        wanted = {f"first_log_ratio_{kind}_{step}" for step in steps for kind in ("mean", "max")}
        assert found.keys() == (wanted | {"first_clip_fraction"} if steps else set())
        assert found.get("first_clip_fraction", 0) == 0
        for step in steps:
            mean, largest = (found[f"first_log_ratio_{kind}_{step}"] for kind in ("mean", "max"))
            assert 0 <= mean <= largest <= entry["ratio_deviation"] + 1e-7
    assert 2 in trained


def test_rollouts(root: Path) -> None:
    table = pd.read_parquet(root / "runs" / "bpgo" / "rollouts.parquet")
    assert list(table.columns) == ROLLOUTS
    assert len(table) == 4 * 2 * 4
    groups = table.groupby(["iteration", "prompt_id"])
    assert (groups["sample"].apply(list).map(tuple) == (0, 1, 2, 3)).all()
    assert (groups.weight.nunique() == 1).all()
    prompts = read_prompts(root / "prompts" / "train.jsonl")
    assert set(table.prompt_id) == set(prompts.ids)
    entries = read_lines(root / "runs" / "bpgo" / "rollouts.jsonl")
    rewards = np.array([entry["reward"] for entry in entries]).ravel()
    np.testing.assert_array_equal(table.reward, rewards)


def test_an_arm_without_prior_or_weight_has_none(settings: Settings, root: Path) -> None:
    table = pd.read_parquet(train(settings, root, "grpo") / "rollouts.parquet")
    assert list(table.columns) == ROLLOUTS
    assert table[["prior", "weight"]].isna().all().all()


def test_manifest(settings: Settings, root: Path) -> None:
    manifest = read_json(root / "runs" / "bpgo" / "manifest.json")
    assert manifest["config_digest"] == settings.run_digest(Run("tiny", "bpgo", 1))
    assert (manifest["experiment"], manifest["arm"], manifest["seed"]) == ("tiny", "bpgo", 1)
    metrics = pd.read_parquet(root / "runs" / "bpgo" / "metrics.parquet")
    assert manifest["wall_seconds"] == pytest.approx(metrics.seconds.sum())
    assert len(manifest["code_digest"]) == 16


def policies(run: Path) -> dict[str, str]:
    return {path.relative_to(run).as_posix(): sha256(path) for path in run.rglob("*.safetensors")}


def test_the_same_command_twice_gives_the_same_policies(settings: Settings, root: Path) -> None:
    again = train(settings, root, "bpgo", "again")
    assert policies(again) == policies(root / "runs" / "bpgo")
    assert len(policies(again)) == 2


def test_the_same_command_resumes_an_interrupted_run(
    settings: Settings, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = scenes_oracle.ScenesOracle.__call__, [0]

    def stop(self: Any, samples: Samples) -> Tensor:
        calls[0] += 1
        if calls[0] == 3:  # in iteration 2: two rewards an iteration
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, samples)

    with monkeypatch.context() as patch:
        patch.setattr(scenes_oracle.ScenesOracle, "__call__", stop)
        with pytest.raises(RunInterruptedError, match="after iteration 2 of 4"):
            train(settings, root, "bpgo", "interrupted")
    output = root / "runs" / "interrupted"
    assert (output / "state").is_dir()
    assert not (output / "manifest.json").exists()
    train(settings, root, "bpgo", "interrupted")
    assert policies(output) == policies(root / "runs" / "bpgo")
    columns = ["iteration", "reward_mean", "loss", "gradient_norm"]
    ours, theirs = (
        pd.read_parquet(root / "runs" / name / "metrics.parquet")[columns]
        for name in ("interrupted", "bpgo")
    )
    pd.testing.assert_frame_equal(ours, theirs, check_exact=True)


def test_other_settings_do_not_resume_an_interrupted_run(
    settings: Settings, root: Path, tiny_folder: Path
) -> None:
    with pytest.raises(RunInterruptedError), pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.Trainer, "iterate", _stop_at_once(training.Trainer.iterate))
        train(settings, root, "bpgo", "changed")
    experiment = settings.experiments["tiny"].model_dump()
    other = tiny_settings(
        tiny_folder, experiments={"tiny": experiment}, training={"learning_rate": 2e-3}
    )
    with pytest.raises(UserError) as caught:
        train(other, root, "bpgo", "changed")
    for digest in (run.run_digest(Run("tiny", "bpgo", 1)) for run in (settings, other)):
        assert digest in str(caught.value)


def _stop_at_once(real: Any) -> Any:
    def iterate(self: Any, *arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return real(self, *arguments)

    return iterate


def test_a_finished_run_may_be_made_again_with_other_settings(
    settings: Settings, root: Path, tiny_folder: Path
) -> None:
    shutil.copytree(root / "runs" / "bpgo", root / "runs" / "remade")
    experiment = settings.experiments["tiny"].model_dump()
    other = tiny_settings(
        tiny_folder, experiments={"tiny": experiment}, training={"learning_rate": 2e-3}
    )
    output = train(other, root, "bpgo", "remade")
    manifest = read_json(output / "manifest.json")
    assert manifest["config_digest"] == other.run_digest(Run("tiny", "bpgo", 1))
    assert policies(output) != policies(root / "runs" / "bpgo")
    assert pd.read_parquet(output / "metrics.parquet").iteration.tolist() == [1, 2, 3, 4]


def test_a_run_can_be_sampled_and_scored(settings: Settings, root: Path) -> None:
    prompts = root / "prompts" / "evaluation.jsonl"
    sample_base(settings, 1, prompts, root / "samples" / "base")
    trained = root / "runs" / "bpgo"
    sample_run(settings, Run("tiny", "bpgo", 1), prompts, trained, root / "samples" / "bpgo")
    for arm in ("base", "bpgo"):
        score_run(
            settings,
            Run("tiny", arm, 1),
            root / "samples" / arm,
            "main",
            root / "scores" / f"{arm}.parquet",
        )
    base, ours = (pd.read_parquet(root / "scores" / f"{arm}.parquet") for arm in ("base", "bpgo"))
    key = ["reward", "prompt_id", "sample"]
    last = ours[ours.iteration == 4]
    assert len(base.merge(last, on=key)) == len(base) == len(last)
    assert set(ours.iteration) == {2, 4}


@pytest.mark.parametrize(
    ("experiment", "arm", "message"),
    [
        ("tinny", "grpo", "'tinny' is unknown"),
        ("tiny", "gpro", "'gpro' is unknown"),
        ("tiny", "base", "'base' is the untrained policy"),
    ],
)
def test_what_cannot_be_trained(
    experiment: str, arm: str, message: str, settings: Settings, root: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        training.train(
            settings,
            Run(experiment, arm, 1),
            root / "prompts" / "train.jsonl",
            root / "calibration" / "calibration.json",
            tmp_path / "run",
        )
    assert not (tmp_path / "run").exists()


def test_inputs_that_are_missing(settings: Settings, root: Path, tmp_path: Path) -> None:
    prompts, anchor = root / "prompts" / "train.jsonl", root / "calibration" / "calibration.json"
    few = tmp_path / "few.jsonl"
    few.write_text(prompts.read_text().splitlines()[0])
    for files, message in (
        ((tmp_path / "none.jsonl", anchor), "no such file"),
        ((few, anchor), "holds 1 prompts, but 2 are needed"),
        ((prompts, tmp_path / "none.json"), "none.json: no such file; run `calibrate` again"),
    ):
        with pytest.raises(UserError, match=message):
            training.train(settings, Run("tiny", "grpo", 1), *files, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_arm_of_a_sweep_trains_with_its_own_sizes(
    settings: Settings, root: Path, tmp_path: Path
) -> None:
    sweep = {"experiment": "tiny", "arm": "grpo", "setting": "rollout.group_size", "values": [2, 6]}
    names = ("grpo_group_size_2", "grpo_group_size_6")
    values = {"size": SweepSettings.model_validate(sweep)}
    arms = settings.arms | dict.fromkeys(names, settings.arms["grpo"])
    swept = settings.model_copy(update={"sweeps": values, "arms": arms})
    for name, size in zip(names, (2, 6), strict=True):
        output = train(swept, root, name)
        rows = pd.read_parquet(output / "rollouts.parquet")
        assert set(rows.groupby(["iteration", "prompt_id"]).size()) == {size}
        sample_run(
            swept, Run("tiny", name, 1), root / "prompts" / "evaluation.jsonl", output, tmp_path
        )
        assert len(pd.read_parquet(tmp_path / "index.parquet")) == 2 + 4  # as of every other arm
