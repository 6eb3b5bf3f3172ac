"""Known effects come back, with the right sign, size, pairing and n."""

from __future__ import annotations

import numpy as np
import pytest
import synthetic

from bpgo.analysis.collect import collect
from bpgo.analysis.statistics.compute import compute_statistics, load_statistics
from bpgo.analysis.statistics.convergence import running_mean


def pick(frame, **wanted):
    keep = np.ones(len(frame), bool)
    for column, value in wanted.items():
        keep &= (frame[column] == value).to_numpy()
    assert keep.sum() == 1, wanted
    return frame[keep].iloc[0]


def test_known_effect_on_the_training_reward(frames):
    for arm, (gain, _, _) in synthetic.EFFECTS.items():
        rows = frames["differences"]
        if arm not in set(rows["arm"]):
            continue
        row = pick(
            rows, experiment="ambiguous", arm=arm, reference="base", reward="scenes_ambiguous_a"
        )
        assert row["difference"] == pytest.approx(gain, abs=0.15)
        assert row["significant"]
        assert row["improvement"] > 0.8


def test_known_difference_between_arms(frames):
    row = pick(
        frames["differences"],
        experiment="ambiguous",
        arm="bpgo",
        reference="grpo",
        reward="scenes_ambiguous_b",
    )
    assert row["low"] < 0.3 < row["high"]
    assert row["low"] > 0
    assert row["seeds_better"] == row["n_seeds"] == 3
    assert row["n_prompts"] == 128


def test_reverse_difference_is_the_mirror_image(frames):
    one, other = (
        pick(frames["differences"], experiment="clear", arm=a, reference=b, reward="oracle")
        for a, b in (("bpgo", "grpo"), ("grpo", "bpgo"))
    )
    assert one["difference"] == pytest.approx(-other["difference"])
    assert (one["low"], one["high"]) == pytest.approx((-other["high"], -other["low"]))
    assert one["improvement"] == pytest.approx(1 - other["improvement"])


def test_unequal_seeds_pair_on_those_they_share(frames, account):
    final = pick(frames["final"], experiment="ambiguous", arm="flow_grpo", reward="oracle")
    assert final["n_seeds"] == 2
    row = pick(
        frames["differences"],
        experiment="ambiguous",
        arm="flow_grpo",
        reference="grpo",
        reward="oracle",
    )
    assert row["n_seeds"] == 2
    assert account["complete_runs"] == account["expected_runs"] - 1


def test_curves_start_at_the_base_and_end_at_the_final_gain(frames):
    curve = frames["curves"]
    curve = curve[(curve["arm"] == "grpo") & (curve["reward"] == "scenes_ambiguous_a")]
    assert list(curve["iteration"]) == [0, 5, 10, 15, 20]
    assert curve["gain"].iloc[0] == 0
    assert curve["gain"].is_monotonic_increasing
    assert set(curve["n_prompts"]) == {32}


def test_over_optimization_is_told_per_seed(frames):
    gains = frames["gains"]
    end = gains[
        (gains["experiment"] == "ambiguous")
        & (gains["arm"] == "grpo")
        & (gains["prompts"] == "all")
    ]
    assert len(end) == 3 * 5
    assert (end[end["role"] == "training"]["gain_sd"] > 0.5).all()
    assert (end[end["role"] == "oracle"]["gain_sd"] < 0).all()


def test_premise_holds_in_one_world_only(frames):
    trends = frames["premise_summary"]
    for measure in ("gain", "gamma"):
        keys = {"measure": measure, "by": "ambiguity"}
        ambiguous = pick(trends, experiment="ambiguous", reward="scenes_ambiguous_a", **keys)
        assert ambiguous["high"] < -0.3
        clear = pick(trends, experiment="clear", reward="scenes_clear_a", **keys)
        assert clear["low"] < 0 < clear["high"]
    bins = frames["premise"]
    bins = bins[(bins["experiment"] == "ambiguous") & (bins["by"] == "ambiguity")]
    bins = bins[bins["measure"] == "gain"]
    falls = bins[bins["reward"] == "scenes_ambiguous_a"].sort_values("centre")["mean"]
    assert falls.iloc[0] > 0.5
    assert abs(falls.iloc[-1]) < 0.15


def test_trust_follows_reliability_where_it_was_made_to(frames):
    summary = frames["trust_summary"]
    wanted = {"experiment": "ambiguous", "arm": "bpgo_ras"}
    for measure in ("gain", "gamma"):
        for reads in ("weight", "deviation"):
            assert pick(summary, **wanted, measure=measure, reads=reads)["low"] > 0
    assert "grpo" not in set(summary["arm"])


def test_what_goes_with_ambiguity_alone_is_gone_with_ambiguity_fixed(frames):
    """The synthetic groups' means tell of reliability through ambiguity and by nothing else."""
    summary = frames["trust_summary"]
    wanted = {"experiment": "ambiguous", "arm": "bpgo_ras", "measure": "gain"}
    plain, fixed = (pick(summary, **wanted, reads=f"deviation{end}") for end in ("", "_fixed"))
    assert plain["mean"] > 0.2
    assert abs(fixed["mean"]) < 0.1
    wanted = {"experiment": "ambiguous", "reward": "scenes_ambiguous_a", "measure": "gain"}
    trends = frames["premise_summary"]
    plain, fixed = (pick(trends, **wanted, by=f"group_mean{end}") for end in ("", "_fixed"))
    assert plain["low"] > 0.2
    assert fixed["low"] < 0.1


def test_convergence_measures(frames):
    summary = frames["convergence_summary"]
    flow = pick(summary, experiment="ambiguous", arm="flow_grpo", measure="area")
    assert flow["difference"] < 0
    grpo = pick(summary, experiment="ambiguous", arm="grpo", measure="steps_to_threshold")
    assert 1 <= grpo["mean"] <= 20
    assert grpo["reached"] == 3
    seconds = pick(summary, experiment="ambiguous", arm="bpgo", measure="seconds")
    assert seconds["mean"] == pytest.approx(0.64, abs=0.01)
    assert seconds["difference"] == pytest.approx(1, abs=0.02)
    assert frames["training"]["adjusted"].all()


def test_running_mean_keeps_constants_and_lines():
    assert np.allclose(running_mean(np.full(50, 2.0)), 2)
    line = np.arange(50.0)
    assert np.allclose(running_mean(line)[5:-5], line[5:-5])


@pytest.fixture(scope="module")
def null(tmp_path_factory):
    """Many equal arms: every difference between them is chance."""
    names = ("grpo", *(f"same_{k}" for k in range(8)))
    settings = synthetic.make_settings(
        arms=names,
        clear=False,
        sweep=(),
        prompts=64,
        curve_prompts=16,
        iterations=4,
        snapshot_every=4,
        bootstrap_samples=500,
    )
    folder = tmp_path_factory.mktemp("null")
    original = dict(synthetic.EFFECTS)
    synthetic.EFFECTS.update(dict.fromkeys(names, (0.5, 0.2, 0.1)))
    try:
        synthetic.write_root(settings, folder, seed_sd=0.05)
    finally:
        synthetic.EFFECTS.clear()
        synthetic.EFFECTS.update(original)
    collect(settings, folder, folder / "collected")
    compute_statistics(settings, folder / "collected", folder / "statistics")
    return load_statistics(folder / "statistics")[0]


def test_no_effect_is_seldom_significant(null):
    gaps = null["differences"]
    gaps = gaps[(gaps["reference"] != "base") & (gaps["arm"] != "base")]
    assert gaps["significant"].mean() < 0.12
    assert gaps["difference"].abs().max() < 0.3


def test_one_seed_is_never_significant(tmp_path):
    settings = synthetic.make_settings(
        arms=("grpo", "bpgo"),
        seeds=(4,),
        clear=False,
        sweep=(),
        prompts=32,
        curve_prompts=32,
        iterations=4,
        snapshot_every=4,
        bootstrap_samples=50,
    )
    synthetic.write_root(settings, tmp_path)
    collect(settings, tmp_path, tmp_path / "collected")
    compute_statistics(settings, tmp_path / "collected", tmp_path / "statistics")
    frames, _ = load_statistics(tmp_path / "statistics")
    assert not frames["differences"]["significant"].any()
    assert frames["differences"]["low"].isna().all()
    tested = frames["claims"][frames["claims"]["n_seeds"] == 1]
    assert set(tested["verdict"]) == {"not resolved"}


def test_statistics_are_equal_when_made_twice(settings, root, statistics, tmp_path):
    compute_statistics(settings, root / "collected", tmp_path)
    for file in sorted(statistics.iterdir()):
        assert file.read_bytes() == (tmp_path / file.name).read_bytes(), file.name
