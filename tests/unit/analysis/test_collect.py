from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import synthetic
from scipy import stats

from bpgo.analysis.collect import collect
from bpgo.analysis.cut_prompts import say_cut
from bpgo.analysis.statistics.compute import compute_statistics
from bpgo.analysis.statistics.data import load_collected
from bpgo.config.runs import Run
from bpgo.errors import UserError
from bpgo.storage.files import read_json, write_json
from bpgo.storage.tables import write_table


@pytest.fixture
def tiny(tmp_path):
    settings = synthetic.make_settings(**synthetic.TINY)
    synthetic.write_root(settings, tmp_path)
    return settings, tmp_path


def test_missing_runs_are_listed_with_reasons(root):
    entries = read_json(root / "collected" / "runs.json")["missing"]
    assert [(entry["arm"], entry["seed"]) for entry in entries] == [("flow_grpo", 2)]
    for reason in ("manifest", "rollouts.parquet", "no scores by scenes_ambiguous_a"):
        assert reason in entries[0]["reason"]


def test_a_run_with_half_its_rewards_is_listed(tiny):
    settings, folder = tiny
    path = folder / "scores" / "ambiguous" / "bpgo" / "seed_2" / "main.parquet"
    scores = pd.read_parquet(path)
    write_table(scores[scores["reward"] != "oracle"], path)
    collect(settings, folder, folder / "collected")
    entries = read_json(folder / "collected" / "runs.json")["missing"]
    assert entries == [
        {"experiment": "ambiguous", "arm": "bpgo", "seed": 2, "reason": "no scores by oracle"}
    ]
    compute_statistics(settings, folder / "collected", folder / "statistics")
    final = pd.read_parquet(folder / "statistics" / "final.parquet")
    bpgo = final[final["arm"] == "bpgo"].set_index("reward")["n_seeds"]
    assert bpgo["oracle"] == 1
    assert bpgo["oracle_strict"] == 2


@pytest.mark.parametrize("key", ["config_digest", "code_digest"])
def test_mixed_runs_are_refused_unless_allowed(tiny, key):
    settings, folder = tiny
    path = folder / "runs" / "ambiguous" / "grpo" / "seed_2" / "manifest.json"
    manifest = read_json(path)
    expected = manifest[key]
    write_json(path, manifest | {key: "0ther"})
    with pytest.raises(UserError) as caught:
        collect(settings, folder, folder / "collected")
    message = str(caught.value)
    assert "--allow-mixed" in message
    assert "0ther" in message
    assert expected in message
    assert "seed_2" in message
    assert not (folder / "collected").exists()
    collect(settings, folder, folder / "collected", allow_mixed=True)
    assert read_json(folder / "collected" / "runs.json")["allow_mixed"] is True


def test_runs_of_one_code_may_use_different_files(tiny):
    settings, folder = tiny
    paths = {run: folder / "runs" / run.folder / "manifest.json" for run in settings.runs()}
    for run, path in paths.items():
        code = {"shared.py": "one", f"{run.arm}.py": run.arm}
        write_json(path, read_json(path) | {"code": code, "code_digest": f"of {run.arm}"})
    collect(settings, folder, folder / "collected")
    assert read_json(folder / "collected" / "runs.json")["mixed_code"] is False
    write_json(path, read_json(path) | {"code": code | {"shared.py": "two"}})
    with pytest.raises(UserError, match=r"shared\.py is two, the other's is one"):
        collect(settings, folder, folder / "collected")
    collect(settings, folder, folder / "collected", allow_mixed=True)
    assert read_json(folder / "collected" / "runs.json")["mixed_code"] is True


def test_prompts_that_a_reward_read_in_part_are_counted(tiny, monkeypatch):
    settings, folder = tiny
    oracle = type(settings.rewards["oracle"])
    collect(settings, folder, folder / "collected")  # no reward here cuts a prompt
    assert read_json(folder / "collected" / "runs.json")["cut_prompts"] == {}
    monkeypatch.setattr(oracle, "longest_prompt", lambda _: 35)
    path = folder / "scores" / "ambiguous" / "base" / "seed_1" / "main.parquet"
    scores = pd.read_parquet(path)
    ids = sorted(scores["prompt_id"].unique())
    write_table(scores.assign(cut=scores["prompt_id"].isin(ids[:3])), path)
    path = folder / "calibration" / "ambiguous" / "samples.parquet"
    known = pd.read_parquet(path)
    write_table(known.assign(cut=False), path)
    collect(settings, folder, folder / "collected")
    found = read_json(folder / "collected" / "runs.json")["cut_prompts"]
    counts = {"evaluation": [3, len(ids)], "training": [0, known["prompt_id"].nunique()]}
    assert found["ambiguous"]["oracle"] == counts
    [sentence] = [line for line in say_cut(settings, found) if line.startswith("Oracle reads")]
    assert f"at most 35 tokens of a prompt: of 3 of {len(ids)} evaluation prompts" in sentence


def test_a_score_that_is_not_finite_is_named(tiny):
    settings, folder = tiny
    path = folder / "scores" / "ambiguous" / "bpgo" / "seed_1" / "main.parquet"
    scores = pd.read_parquet(path)
    scores.loc[3, "score"] = np.nan
    write_table(scores, path)
    with pytest.raises(UserError, match=r"ambiguous/bpgo/seed_1: 1 scores are NaN"):
        collect(settings, folder, folder / "collected")


def test_nothing_to_collect_is_an_error(tmp_path):
    settings = synthetic.make_settings(**synthetic.TINY)
    with pytest.raises(UserError, match="no scores"):
        collect(settings, tmp_path, tmp_path / "collected")


def test_a_broken_file_is_named(tiny):
    settings, folder = tiny
    path = folder / "runs" / "ambiguous" / "grpo" / "seed_1" / "metrics.parquet"
    path.write_bytes(b"not parquet")
    with pytest.raises(UserError, match=r"metrics\.parquet: cannot be read"):
        collect(settings, folder, folder / "collected")


def test_groups_reduce_rollouts(tiny):
    settings, folder = tiny
    collect(settings, folder, folder / "collected")
    groups = pd.read_parquet(folder / "collected" / "groups.parquet")
    row = groups[(groups["arm"] == "bpgo") & (groups["seed"] == 2)].iloc[5]
    rollouts = pd.read_parquet(folder / "runs/ambiguous/bpgo/seed_2/rollouts.parquet")
    own = rollouts[
        (rollouts["iteration"] == row["iteration"]) & (rollouts["prompt_id"] == row["prompt_id"])
    ]
    assert row["reward_mean"] == pytest.approx(own["reward"].mean(), rel=1e-5)
    assert row["reward_std"] == pytest.approx(own["reward"].std(ddof=0), rel=1e-5)
    # Without ties gamma is Kendall's tau.
    expected = stats.kendalltau(own["reward"], own["oracle"])[0]
    assert row["gamma"] == pytest.approx(expected, rel=1e-5)
    every = rollouts.groupby(["iteration", "prompt_id"])["oracle"]
    assert len(every.size().unique()) == 1
    gain = np.cov(own["reward"], own["oracle"], ddof=0)[0, 1] / own["reward"].std(ddof=0)
    assert row["gain"] == pytest.approx(gain, rel=0.1), "the oracle is standard normal in a group"
    assert row["weight"] == pytest.approx(own["weight"].iloc[0], rel=1e-5)


def test_collected_numbers_are_small(tiny):
    settings, folder = tiny
    collect(settings, folder, folder / "collected")
    scores = pd.read_parquet(folder / "collected" / "scores.parquet")
    assert scores["score"].dtype == np.float32
    assert len(scores) == 2 * 16 * 5 + 4 * (8 + 16) * 5


def test_collecting_twice_gives_the_same_bytes(tiny):
    settings, folder = tiny
    for name in ("one", "two"):
        collect(settings, folder, folder / name)
    for file in sorted((folder / "one").iterdir()):
        assert file.read_bytes() == (folder / "two" / file.name).read_bytes(), file.name


def test_a_sample_scored_twice_is_refused(tiny):
    settings, folder = tiny
    collect(settings, folder, folder / "collected")
    scores = pd.read_parquet(folder / "collected" / "scores.parquet")
    doubled = pd.concat([scores, scores.tail(1)])
    synthetic.put_collected(doubled, folder / "collected", "scores")
    with pytest.raises(UserError, match="scored twice"):
        load_collected(settings, folder / "collected")


def test_a_run_scored_in_part_is_refused(tiny):
    settings, folder = tiny
    collect(settings, folder, folder / "collected")
    scores = pd.read_parquet(folder / "collected" / "scores.parquet")
    last = (scores["arm"] == "bpgo") & (scores["seed"] == 1) & (scores["iteration"] == 4)
    part = scores.drop(index=scores[last].index[:3])
    synthetic.put_collected(part, folder / "collected", "scores")
    with pytest.raises(UserError, match="ambiguous/bpgo at iteration 4"):
        compute_statistics(settings, folder / "collected", folder / "statistics")


def test_scores_alone_show_what_is_missing(tiny):
    settings, folder = tiny
    collect(settings, folder, folder / "collected")
    (folder / "collected" / "runs.json").unlink()
    scores = pd.read_parquet(folder / "collected" / "scores.parquet")
    scores = scores[~((scores["arm"] == "grpo") & (scores["seed"] == 2))]
    write_table(scores, folder / "collected" / "scores.parquet")
    compute_statistics(settings, folder / "collected", folder / "statistics")
    account = json.loads((folder / "statistics" / "runs.json").read_text())
    assert [(entry["arm"], entry["seed"]) for entry in account["missing"]] == [("grpo", 2)]
    assert account["complete_runs"] == 3


def test_runs_without_calibration_still_compare(tiny):
    settings, folder = tiny
    (folder / "calibration" / "ambiguous" / "samples.parquet").unlink()
    collect(settings, folder, folder / "collected")
    compute_statistics(settings, folder / "collected", folder / "statistics")
    assert pd.read_parquet(folder / "statistics" / "premise.parquet").empty
    assert len(pd.read_parquet(folder / "statistics" / "differences.parquet"))


def test_a_further_judge_belongs_to_the_runs_that_are_there(tiny):
    """Their digest knows no judges; until it has scored, its scores are named as missing."""
    settings, folder = tiny
    entry = settings.experiments["ambiguous"]
    rewards = settings.rewards | {"new": settings.rewards["oracle"]}
    more = entry.model_copy(update={"judges": [*entry.judges, "new"]})
    changed = settings.model_copy(update={"experiments": {"ambiguous": more}, "rewards": rewards})
    collect(changed, folder, folder / "collected")
    missing = read_json(folder / "collected" / "runs.json")["missing"]
    assert {entry["reason"] for entry in missing} == {"no scores by new"}
    for run in [*changed.base_runs(), *changed.runs()]:
        path = folder / "scores" / run.folder / "main.parquet"
        scores = pd.read_parquet(path)
        new = scores[scores["reward"] == "oracle"].assign(reward="new")
        write_table(pd.concat([scores, new], ignore_index=True), path)
    collect(changed, folder, folder / "collected")
    assert read_json(folder / "collected" / "runs.json")["missing"] == []


def test_a_run_that_ended_early_counts_as_missing(tmp_path):
    settings = synthetic.make_settings(**synthetic.TINY)
    synthetic.write_root(settings, tmp_path)
    run = Run("ambiguous", "bpgo", 2)
    path = tmp_path / "scores" / run.folder / "main.parquet"
    scores = pd.read_parquet(path)
    write_table(scores[scores["iteration"] < 4], path)
    collect(settings, tmp_path, tmp_path / "collected")
    compute_statistics(settings, tmp_path / "collected", tmp_path / "statistics")
    account = read_json(tmp_path / "statistics" / "runs.json")
    assert [(entry["arm"], entry["seed"]) for entry in account["missing"]] == [("bpgo", 2)]


def test_what_was_measured_is_joined_and_what_lacks_is_listed(tiny):
    settings, folder = tiny
    wanted = settings.evaluation.model_copy(update={"divergence_prompts": 2})
    settings = settings.model_copy(update={"evaluation": wanted})
    runs = settings.runs()
    for run in runs[1:]:
        path = folder / "harm" / f"{run.folder}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        row = {"iteration": 4, "measure": "kl", "prompt_id": "e0000", "value": 0.25}
        write_table(pd.DataFrame([row]), path)
    collect(settings, folder, folder / "collected", allow_mixed=True)
    harm = pd.read_parquet(folder / "collected" / "harm.parquet")
    assert len(harm) == len(runs) - 1
    assert set(harm["value"]) == {0.25}
    missing = read_json(folder / "collected" / "runs.json")["missing"]
    assert [entry["reason"] for entry in missing] == [
        f"not measured: no harm/{runs[0].folder}.parquet"
    ]
    # Collections of earlier versions have no such file, and no digests.
    (folder / "collected" / "harm.parquet").unlink()
    path = folder / "collected" / "runs.json"
    account = read_json(path)
    write_json(path, {key: account[key] for key in account if key not in ("files", "seal")})
    assert load_collected(settings, folder / "collected").harm.empty


@pytest.mark.parametrize("name", ["metrics", "rollouts"])
def test_a_run_with_a_gap_is_refused(tiny, name):
    settings, folder = tiny
    path = folder / "runs" / "ambiguous" / "grpo" / "seed_1" / f"{name}.parquet"
    table = pd.read_parquet(path)
    last = table["iteration"].max()
    write_table(table[table["iteration"] < last], path)
    with pytest.raises(UserError, match=rf"seed_1/{name}.parquet: iteration {last} is missing"):
        collect(settings, folder, folder / "collected")
    write_table(table[table["iteration"] != 2], path)
    with pytest.raises(UserError, match=rf"seed_1/{name}.parquet: iteration 2 is missing"):
        collect(settings, folder, folder / "collected")


@pytest.mark.parametrize("name", ["metrics", "rollouts"])
def test_a_run_with_a_row_twice_is_refused(tiny, name):
    settings, folder = tiny
    path = folder / "runs" / "ambiguous" / "grpo" / "seed_1" / f"{name}.parquet"
    table = pd.read_parquet(path)
    write_table(pd.concat([table, table.iloc[[0]]]), path)
    with pytest.raises(UserError, match=rf"seed_1/{name}.parquet: iteration 1 has \d+ rows"):
        collect(settings, folder, folder / "collected")


def test_a_score_that_is_there_twice_is_refused(tiny):
    settings, folder = tiny
    path = folder / "scores" / "ambiguous" / "bpgo" / "seed_1" / "main.parquet"
    scores = pd.read_parquet(path)
    write_table(pd.concat([scores, scores.iloc[[5]]]), path)
    with pytest.raises(UserError, match=r"scores: holds experiment ambiguous.* twice"):
        collect(settings, folder, folder / "collected")


def test_a_failed_run_is_missing_with_its_reason(tiny):
    """What it left behind, such as its first iterations, is not compared."""
    settings, folder = tiny
    path = folder / "runs" / "ambiguous" / "bpgo" / "seed_2" / "manifest.json"
    write_json(path, read_json(path) | {"failed": "the gradient's norm is nan"})
    collect(settings, folder, folder / "collected")
    (entry,) = read_json(folder / "collected" / "runs.json")["missing"]
    assert (entry["arm"], entry["seed"]) == ("bpgo", 2)
    assert entry["reason"] == "training failed: the gradient's norm is nan"
    for name in ("scores", "metrics", "groups"):
        table = pd.read_parquet(folder / "collected" / f"{name}.parquet")
        assert table[(table["arm"] == "bpgo") & (table["seed"] == 2)].empty
        assert not table[(table["arm"] == "bpgo") & (table["seed"] == 1)].empty


def test_an_arm_that_failed_wholly_leaves_the_others_compared(tiny):
    settings, folder = tiny
    for seed in (1, 2):
        path = folder / "runs" / "ambiguous" / "bpgo" / f"seed_{seed}" / "manifest.json"
        write_json(path, read_json(path) | {"failed": "reward is nan"})
    collect(settings, folder, folder / "collected")
    compute_statistics(settings, folder / "collected", folder / "statistics")
    final = pd.read_parquet(folder / "statistics" / "final.parquet")
    assert "grpo" in set(final["arm"])
    assert "bpgo" not in set(final["arm"].dropna())
