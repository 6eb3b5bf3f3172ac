"""Counted work against what the commands do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from large_model import write_configuration

from bpgo.config import resolve as config
from bpgo.config.settings import Settings
from bpgo.registry import load_arm_class
from bpgo.steps.sample import _stages
from bpgo.tools.planning.work import Jobs, Work, passes, snapshots, trained_steps, work_of


@pytest.fixture(scope="module")
def default() -> Settings:
    return config.load(config.default_configfile())


def group(work: Work, rule: str, name: str) -> Jobs:
    (found,) = [jobs for jobs in work.groups if (jobs.rule, jobs.name) == (rule, name)]
    return found


def test_the_published_run(default: Settings) -> None:
    """README: 131 jobs, 36 runs, 42 samplings and scorings."""
    work = work_of(default)
    assert sum(work.jobs.values()) == 131
    assert {rule: work.jobs[rule] for rule in ("train", "sample", "score", "calibrate")} == {
        "train": 36,
        "sample": 42,
        "score": 42,
        "calibrate": 2,
    }
    # 36 runs of 4 snapshots x 128 and 512 images, 6 untrained policies of 512
    assert work.total("files") == 36 * (4 * 128 + 512) + 6 * 512
    assert work.texts == 512 + 512


def test_one_run(default: Settings) -> None:
    """grpo: 50 iterations of 96 samples, 8 steps each, 4 of the 7 stochastic ones trained."""
    run = group(work_of(default), "train", "ambiguous/grpo")
    assert run.count == 3
    assert run.forwards == 50 * 96 * 8
    assert run.updates == 50 * 96 * 4
    assert run.decoded == 50 * 96
    assert run.rewarded == {"scenes_ambiguous_a": 4800, "oracle": 4800}
    assert run.policies == 5


def test_calibration_draws_twice_where_noise_is_shared(default: Settings) -> None:
    jobs = group(work_of(default), "calibrate", "clear")
    assert jobs.forwards == 2 * 256 * 12 * 8
    assert jobs.rewarded["scenes_clear_a"] == 2 * 256 * 12
    assert jobs.rewarded["oracle"] == 256 * 12
    apart = default.calibration.model_copy(update={"shared_initial_noise": False})
    once = work_of(default.model_copy(update={"calibration": apart}))
    assert group(once, "calibrate", "clear").forwards == 256 * 12 * 8


@pytest.mark.parametrize("arm", ["grpo", "dance_grpo", "flow_grpo", "bpgo"])
def test_trained_steps_are_the_arms(default: Settings, arm: str) -> None:
    settings: Any = default.arms[arm]
    chosen = load_arm_class(settings.algorithm)(settings)
    steps = chosen.trained_steps(range(7), 3, torch.Generator())
    assert trained_steps(default, arm) == steps.shape[1]


def test_snapshots_are_those_that_are_sampled(default: Settings) -> None:
    for iterations in (10, 11, 20, 21):
        training = default.training.model_copy(update={"iterations": iterations})
        settings = default.model_copy(update={"training": training})
        assert snapshots(settings) + 1 == len(_stages(settings, Path("run")))


def test_a_kl_term_adds_the_reference_policy(default: Settings) -> None:
    plain: Any = default.arms["grpo"]
    arms = default.arms | {"grpo": plain.model_copy(update={"kl_weight": 0.01})}
    with_term = group(work_of(default.model_copy(update={"arms": arms})), "train", "ambiguous/grpo")
    without = group(work_of(default), "train", "ambiguous/grpo")
    assert with_term.forwards == without.forwards + without.updates
    assert with_term.updates == without.updates


def test_guidance_is_a_second_pass_for_some_models(default: Settings, tmp_path: Path) -> None:
    guided = {"rollout": {"guidance_scale": 4.5}}
    flux = config.load(write_configuration(tmp_path / "flux", **guided))
    assert passes(flux, 4.5) == 1
    model = flux.model.model_copy(update={"kind": "stable_diffusion_3"})
    sd3 = flux.model_copy(update={"model": model})
    assert passes(sd3, 4.5) == 2
    assert passes(sd3, 1.0) == 1
    one, two = (group(work_of(s), "train", "ambiguous/grpo") for s in (flux, sd3))
    assert (two.forwards, two.updates) == (2 * one.forwards, 2 * one.updates)
    assert two.decoded == one.decoded
    assert work_of(sd3).texts == work_of(flux).texts + 1  # the empty prompt
    half = sd3.model_copy(
        update={"model": model.model_copy(update={"guidance_gradient": "conditional"})}
    )
    third = group(work_of(half), "train", "ambiguous/grpo")
    assert (third.forwards, third.updates) == (2 * one.forwards + one.updates, one.updates)
