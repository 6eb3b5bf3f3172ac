"""Counted work against what the commands do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from large_model import write_configuration
from published_run import write_published

from bpgo.config import resolve as config
from bpgo.config.settings import Settings
from bpgo.registry import load_arm_class
from bpgo.seeding import generator
from bpgo.steps.kept_policies import stages_of
from bpgo.tools.planning.work import Jobs, Work, arm_passes, passes, snapshots, work_of


@pytest.fixture(scope="module")
def default() -> Settings:
    return config.load(config.default_configfile())


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return config.load(write_published(tmp_path_factory.mktemp("published")))


def group(work: Work, rule: str, name: str) -> Jobs:
    (found,) = [jobs for jobs in work.groups if (jobs.rule, jobs.name) == (rule, name)]
    return found


def test_the_published_run(published: Settings) -> None:
    """README: 131 jobs, 36 runs, 39 samplings and 42 scorings; 39 more measure harm."""
    work = work_of(published)
    assert sum(work.jobs.values()) == 131 + 39
    wanted = {"draw": 1, "calibrate": 2, "judge": 2, "train": 36}
    wanted |= {"sample_base": 3, "sample": 36, "score": 42, "harm_base": 3, "harm": 36}
    assert {rule: work.jobs[rule] for rule in wanted} == wanted
    # 36 runs and 3 seeds of the untrained policy: 512 images; of 4 snapshots of each run: 128
    assert work.total("files") == (36 + 3) * 512 + 36 * 4 * 128
    # 32 prompts x 8 samples; both policies at 7 stochastic steps of 64 paths of 5 policies
    assert group(work, "harm", "clear/bpgo").decoded == 256
    assert group(work, "harm", "clear/bpgo").forwards == 256 * 8 + 64 * 5 * 7 * 2
    assert group(work, "harm_base", "base").forwards == 256 * 8
    assert work.texts == 512 + 512


def test_the_default(default: Settings) -> None:
    """9 arms in one world, 6 in the other, 3 values of the sweep; 3 seeds."""
    work = work_of(default)
    assert sum(work.jobs.values()) == 242
    runs = 3 * (9 + 6 + 3)
    wanted = {"draw": 1, "calibrate": 2, "judge": 2, "train": runs}
    wanted |= {"sample_base": 3, "sample": runs, "score": runs + 6, "harm_base": 3, "harm": runs}
    assert {rule: work.jobs[rule] for rule in wanted} == wanted
    assert work.total("files") == (runs * 5 + 3) * 512
    # 6 steps here, and noise in 2 of them, in which the two policies are compared
    assert group(work, "harm", "clear/bpgo").forwards == 256 * 6 + 64 * 5 * 2 * 2


def test_one_run(default: Settings, published: Settings) -> None:
    """grpo, published: 50 iterations of 96 samples, 8 steps, 4 of the 7 stochastic ones trained.

    The default: 100 iterations, 6 steps, both stochastic ones trained.
    """
    for settings, iterations, steps, trained in ((published, 50, 8, 4), (default, 100, 6, 2)):
        run = group(work_of(settings), "train", "ambiguous/grpo")
        samples = iterations * 96
        assert run.count == 3
        assert run.forwards == samples * steps
        assert run.updates == samples * trained
        assert run.decoded == samples
        assert run.rewarded == {"scenes_ambiguous_a": samples, "oracle": samples}
        assert run.policies == 5


def test_calibration_draws_each_sample_once(default: Settings) -> None:
    work = work_of(default)
    assert work.jobs["draw"] == 1, "both experiments have the reference arm's"
    assert group(work, "draw", "dance_1p6_2").forwards == 256 * 12 * 6
    jobs = group(work, "calibrate", "clear")
    assert jobs.forwards == 0
    assert jobs.decoded == 256 * 12
    assert group(work, "judge", "clear").reward_calls == 0, "it completes what is there"
    assert jobs.rewarded["scenes_clear_a"] == jobs.rewarded["oracle"] == 256 * 12


ARMS = [path.stem for path in sorted((config.default_configfile().parent / "arms").glob("*.yaml"))]


@pytest.mark.parametrize("name", ARMS)
def test_passes_are_those_of_the_arms_plans(default: Settings, name: str) -> None:
    """Counted against the plans of 20 iterations: never fewer, and as many in some."""
    chosen: Any = config.load_arm(name, config.default_configfile().parent)
    arm, sizes = load_arm_class(chosen.algorithm)(chosen), default.rollout
    plans = [arm.plan(sizes, number, generator(1, number)) for number in range(1, 21)]
    counted = arm_passes(default.model_copy(update={"arms": {name: chosen}}), name)
    assert counted.rollout == max(len(plan.levels()) - 1 for plan in plans) == sizes.steps
    assert counted.trained == max(plan.trained.shape[1] for plan in plans)
    assert counted.others == counted.trained * len(arm.others())


def test_snapshots_are_those_that_are_sampled(default: Settings) -> None:
    for iterations in (10, 11, 20, 21):
        training = default.training.model_copy(update={"iterations": iterations})
        settings = default.model_copy(update={"training": training})
        assert snapshots(settings) + 1 == len(stages_of(settings, Path("run")))


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
