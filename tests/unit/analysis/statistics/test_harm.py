"""Harm and courses, on scores whose answers are known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import synthetic

from bpgo.analysis.statistics.bootstrap import Bootstrap
from bpgo.analysis.statistics.courses import courses_of, mean_courses, turning_points
from bpgo.analysis.statistics.data import Scores
from bpgo.analysis.statistics.harm import agreement, harm, worst_tenth, worst_tenth_crossed

STEPS = [0, 10, 20, 30, 40]
TRAINED, GOLD = "scenes_ambiguous_a", "oracle"
PROMPTS, SEEDS = 200, 6


@pytest.fixture(scope="module")
def settings():
    return synthetic.make_settings(arms=("grpo", "bpgo"), clear=False, sweep=(), iterations=40)


def made(proxy: dict[str, list[float]], gold: dict[str, list[float]], noise: float = 0.3) -> Scores:
    """Scores with these mean gains after each of `STEPS`, and noise of seeds, prompts, samples."""
    random = np.random.default_rng(3)
    names = ["base", *proxy]
    cube = np.full((len(names), SEEDS, len(STEPS), 2, PROMPTS, 1), np.nan)
    start = random.normal(0, 1, (SEEDS, 2, PROMPTS, 1))
    cube[0, :, 0] = start
    for place, arm in enumerate(proxy, start=1):
        for step, gains in enumerate(zip(proxy[arm], gold[arm], strict=True), start=1):
            for reward, gain in enumerate(gains):
                jitter = random.normal(0, 0.02, (SEEDS, 1, 1))
                own = random.normal(0, noise, (SEEDS, PROMPTS, 1))
                cube[place, :, step, reward] = start[:, reward] + gain + jitter + own
    ids = [f"e{k:03d}" for k in range(PROMPTS)]
    seeds = list(range(1, SEEDS + 1))
    return Scores("ambiguous", names, seeds, STEPS, [TRAINED, GOLD], ids, cube)


RISES = [0.3, 0.6, 0.8, 1.0]
TURNS = {"grpo": [0.2, 0.5, 0.2, -0.2], "bpgo": [0.1, 0.2, 0.3, 0.4]}


@pytest.fixture(scope="module")
def scores():
    return made({"grpo": RISES, "bpgo": [0.15, 0.3, 0.45, 0.6]}, TURNS)


@pytest.fixture(scope="module")
def measured():
    """KL that rises with the square of the iteration, twice as far in sqrt for GRPO."""
    rows = [
        (arm, seed, step, prompt, (pace * step) ** 2)
        for arm, pace in (("grpo", 0.02), ("bpgo", 0.01))
        for seed in range(1, SEEDS + 1)
        for step in STEPS[1:]
        for prompt in ("e000", "e001")
    ]
    columns = ["arm", "seed", "iteration", "prompt_id", "value"]
    frame = pd.DataFrame(rows, columns=columns)
    return frame.assign(experiment="ambiguous", measure="kl")


def one(frame: pd.DataFrame, **wanted: str) -> pd.Series:
    keep = np.logical_and.reduce([frame[key] == value for key, value in wanted.items()])
    assert keep.sum() == 1, wanted
    return frame[keep].iloc[0]


def test_a_planted_turning_point_is_found(settings, scores, measured):
    found = turning_points(settings, scores, measured, Bootstrap())
    row = one(found, arm="grpo")
    assert (row["iteration"], row["iteration_low"], row["iteration_high"]) == (20, 20, 20)
    assert row["turned"]
    assert row["fall"] == pytest.approx(-0.7, abs=0.05)
    assert row["rise"] == pytest.approx(0.4, abs=0.05)
    assert row["divergence"] == pytest.approx(0.4)
    other = one(found, arm="bpgo")
    assert other["iteration"] == 40
    assert not other["turned"]


def test_noise_alone_does_not_turn(settings):
    """A highest point is always followed by a fall; measured on other seeds there is none."""
    flat = {"grpo": [0.0] * 4, "bpgo": [0.0] * 4}
    found = turning_points(settings, made({"grpo": RISES, "bpgo": RISES}, flat), NOTHING, QUICK)
    assert not found["turned"].any()
    assert (found["fall"].abs() < 0.05).all()


NOTHING, QUICK = pd.DataFrame(), Bootstrap(samples=500)


def test_one_seed_has_no_turning_point(settings, scores):
    alone = Scores(
        "ambiguous", scores.arms, [1], STEPS, scores.rewards, scores.prompts, scores.cube[:, :1]
    )
    found = turning_points(settings, alone, NOTHING, QUICK)
    assert not found["turned"].any()
    assert found["iteration_low"].isna().all()
    assert "worst_tenth_crossed" not in set(harm(settings, alone, NOTHING, QUICK)["measure"])


def test_arms_compare_at_equal_iterations_reward_and_divergence(settings, scores, measured):
    found = harm(settings, scores, measured, QUICK)

    def gap(measure: str) -> float:
        row = one(found, arm="bpgo", measure=measure)
        low, high = (row[f"to_reference_simultaneous_{end}"] for end in ("low", "high"))
        assert low < row["to_reference_difference"] < high
        return float(row["to_reference_difference"])

    assert gap("gold_at_end") == pytest.approx(0.6, abs=0.06)
    # GRPO's final sqrt(KL) is .8: at .64 it stands at iteration 32, BPGO (.4 at most) never.
    level = one(found, arm="grpo", measure="gold_at_divergence")
    assert level["mean"] == pytest.approx(0.2 - 0.2 * 0.4, abs=0.05)
    assert "bpgo" not in set(found[found["measure"] == "gold_at_divergence"]["arm"])
    # 80 % of GRPO's final reward is .8, its iteration 30; BPGO ends at .6.
    assert one(found, arm="grpo", measure="gold_at_reward")["mean"] == pytest.approx(0.2, abs=0.05)


def test_equal_reward_takes_the_slower_arm_where_it_arrives_later(settings):
    """Both arms give the same gold for the same reward; one is half as fast."""
    fast, slow = [0.5, 1.0, 1.0, 1.0], [0.25, 0.5, 0.75, 1.0]
    same = made({"grpo": fast, "bpgo": slow}, {"grpo": fast, "bpgo": slow}, noise=0.0)
    found = harm(settings, same, NOTHING, QUICK)
    row = one(found, arm="bpgo", measure="gold_at_reward")
    assert row["n_seeds"] == row["n_runs"] == SEEDS
    assert row["to_reference_difference"] == pytest.approx(0, abs=0.03)
    assert "gold_at_divergence" not in set(found["measure"]), "nothing was measured"


def test_courses_start_at_the_base_policy(settings, scores, measured):
    courses = courses_of(settings, scores, measured)
    assert list(courses) == [(arm, seed) for arm in ("grpo", "bpgo") for seed in range(1, 7)]
    course = courses["bpgo", 3]
    assert (course.proxy[0], course.gold[0].max(), course.axis("divergence")[0]) == (0, 0, 0)
    np.testing.assert_allclose(course.axis("divergence"), [0, 0.1, 0.2, 0.3, 0.4])
    frame = mean_courses(settings, scores, measured, QUICK)
    row = frame[(frame["arm"] == "grpo") & (frame["iteration"] == 20)].iloc[0]
    assert row["proxy_low"] < row["proxy"] < row["proxy_high"]
    assert row["gold"] == pytest.approx(0.5, abs=0.05)
    # A snapshot whose divergence is missing leaves the run without it.
    part = measured[measured["iteration"] != 20]
    assert not courses_of(settings, scores, part)["grpo", 1].has("divergence")


def test_worst_tenth_finds_harm_that_other_seeds_confirm():
    random = np.random.default_rng(0)
    change = random.normal(0, 1, (8, 400))
    assert worst_tenth(change).mean() == pytest.approx(-1.75, abs=0.1), "by bad luck alone"
    assert abs(worst_tenth_crossed(change).mean()) < 0.15
    change[:, :40] -= 2
    assert worst_tenth_crossed(change).mean() == pytest.approx(-2, abs=0.2)
    np.testing.assert_allclose(worst_tenth(np.arange(11.0)[None]), [0.5], err_msg="2 of 11")


def test_agreement_of_judges():
    signs = {
        "trained": np.array([[1, 1, 0, -1, 0, 1]]),
        "judge": np.array([[1, -1, 0, -1, -1, 0]]),
        "strict": np.array([[0, 0, 0, -1, -1, 0]]),
    }
    found = agreement(signs, "trained")
    assert found["better_by_all"].tolist() == [[1, 0, 0, 0, 0, 1]]
    assert found["worse_but_trained"].tolist() == [[0, 1, 0, 0, 1, 0]]


def test_no_interval_reaches_where_no_level_lies(settings, scores):
    """Two seeds far apart: an interval by t is wider than what a Vendi score can be."""
    values = [("grpo", 1, 1.0), ("grpo", 2, 1.5)]
    rows = [(arm, seed, 40, "e000", "vendi", value) for arm, seed, value in values]
    names = ["arm", "seed", "iteration", "prompt_id", "measure", "value"]
    found = harm(settings, scores, pd.DataFrame(rows, columns=names), Bootstrap(200))
    row = found[found["measure"] == "vendi"].iloc[0]
    assert row["mean"] == pytest.approx(1.25)
    assert row["low"] == 1
    assert row["high"] > 1.5
    shares = found[found["measure"].isin(["better_by_all", "worse_but_trained"])]
    assert shares["low"].min() >= 0
    assert shares["high"].max() <= 1
