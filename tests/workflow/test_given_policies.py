"""A LoRA and whole weights that were trained elsewhere: one row each, and nothing trained again."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from harness import REPOSITORY, Workspace, run, workspace_in
from their_policies import save_their_policies

from bpgo.config.resolve import load
from bpgo.storage.files import read_json, sha256

pytestmark = pytest.mark.slow
ROOT = "results/smoke"


def few(values: dict[str, Any]) -> None:
    """One arm, two seeds, two worlds, few of everything."""
    smoke = values["smoke"]
    for name in ("ambiguous", "clear"):
        values["experiments"][name]["arms"] = ["grpo"]
        del values["experiments"][name]["primary"]
        smoke["experiments"][name] = {"arms": ["grpo"], "seeds": [1, 2]}
    del values["sweeps"], smoke["sweeps"]
    values["rollout"].update(prompts_per_iteration=4, group_size=4)
    smoke["training"].update(iterations=2, snapshot_every=1, checkpoint_every=1)
    smoke["evaluation"].update(prompts=8)
    smoke["calibration"].update(prompts=8, samples_per_prompt=4)
    smoke["analysis"].update(bootstrap_samples=50, final_stages=2)
    values["analysis"]["own_variance"] = []


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA of rank 3, with no word of its alpha, and whole weights that are the base policy's."""
    folder = tmp_path_factory.mktemp("theirs")
    save_their_policies(load(REPOSITORY / "config" / "config.yaml"), folder, scale=0.1)
    return folder


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, theirs: Path) -> Workspace:
    """A finished comparison, to which both are then added."""
    found = workspace_in(tmp_path_factory.mktemp("given"))
    found.edit(few)
    outcome = found.snakemake("smoke")
    assert outcome.code == 0, outcome.text
    return found


def test_one_command_adds_a_row_for_each(workspace: Workspace, theirs: Path) -> None:
    laid = workspace.folder / "theirs.yaml"
    trained = workspace.path(f"{ROOT}/runs/clear/grpo/seed_1")
    laid.write_text(
        "policies:\n"
        f"  lora: {{title: Their LoRA, lora: {theirs / 'their_lora.safetensors'}}}\n"
        f"  whole: {{title: Their weights, weights: {theirs / 'whole'}}}\n"
        f"  again: {{title: Our own, weights: {trained / 'policy'}}}\n"
    )
    plan = workspace.snakemake("--dry-run", "smoke", extra=[laid]).jobs()
    wanted = {"sample": 6, "score": 12, "harm": 12, "collect": 1}
    assert {name: plan[name] for name in wanted} == wanted, "each sampled once a seed"
    assert not {"train", "draw", "calibrate", "judge", "sample_base", "harm_base"} & set(plan)
    outcome = workspace.snakemake("smoke", extra=[laid])
    assert outcome.code == 0, outcome.text

    root = workspace.path(ROOT)
    main = pd.read_csv(root / "tables" / "main.csv")
    rows = main[main["reward"] == "oracle"].set_index(["experiment", "arm"])
    for experiment in ("ambiguous", "clear"):
        assert rows.loc[(experiment, "lora"), "n_seeds"] == 2
        # Whole weights that are the base policy's score as it does, to the bit.
        columns = ["mean", "low", "high"]
        own, base = (rows.loc[(experiment, arm), columns] for arm in ("whole", "base"))
        assert own.tolist() == base.tolist()
        assert rows.loc[(experiment, "lora"), "mean"] != rows.loc[(experiment, "base"), "mean"]
    for file in ("tables/main.md", "tables/differences.md", "report/index.html"):
        text = (root / file).read_text(encoding="utf-8")
        assert "Their LoRA (given)" in text, file
        assert "Their weights (given)" in text, file
    scores = pd.read_parquet(root / "collected" / "scores.parquet")
    scores = scores[(scores["experiment"] == "clear") & (scores["seed"] == 1)]
    scores = scores[scores["iteration"] == 2].set_index(["reward", "prompt_id"]).sort_index()
    own, again = (scores.loc[scores["arm"] == arm, "score"] for arm in ("grpo", "again"))
    assert len(own) == 8 * 5
    assert own.equals(again), "the run's last policy, given back"

    account = read_json(root / "collected" / "runs.json")
    assert account["missing"] == []
    file = theirs / "their_lora.safetensors"
    assert account["policies"]["lora"]["files"] == {file.name: sha256(file)}

    harm = pd.read_parquet(root / "collected" / "harm.parquet")
    kl = harm[harm["measure"] == "kl"].groupby("arm")["value"].mean()
    assert kl["whole"] == 0, "the base policy's own path"
    assert kl["lora"] > 0


def test_another_file_at_the_same_place_is_sampled_again(
    workspace: Workspace, theirs: Path
) -> None:
    laid = workspace.folder / "theirs.yaml"
    assert not workspace.snakemake("--dry-run", "smoke", extra=[laid]).jobs()
    changed = theirs / "their_lora.safetensors"
    kept = changed.read_bytes()
    changed.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    try:
        plan = workspace.snakemake("--dry-run", "smoke", extra=[laid]).jobs()
    finally:
        changed.write_bytes(kept)
    assert plan["sample"] == 2, "of the LoRA alone"
    assert "train" not in plan


def test_a_lora_in_a_job_that_a_server_starts(workspace: Workspace) -> None:
    """Where full weights are trained, that server imports no more than these need."""
    target = f"{ROOT}/samples/given/lora/seed_1/index.parquet"
    before = pd.read_parquet(workspace.path(target))
    workspace.path(target).unlink()
    files = [str(workspace.configfile), str(workspace.folder / "theirs.yaml")]
    command = [sys.executable, "-m", "snakemake", "--configfile", *files, "--cores", "1"]
    outcome = run([*command, "--directory", str(workspace.folder), "--", target])
    assert outcome.code == 0, outcome.text
    assert outcome.jobs() == {"sample": 1}
    assert "no warm start" not in outcome.text
    assert pd.read_parquet(workspace.path(target)).equals(before)


def test_a_pickle_ends_the_call_before_any_job(workspace: Workspace, theirs: Path) -> None:
    pickle = theirs / "lora.bin"
    pickle.write_bytes(b"\x80\x04\x95" + b"." * 100)
    laid = workspace.folder / "pickle.yaml"
    laid.write_text(f"policies: {{theirs: {{title: T, lora: {pickle}}}}}\n")
    outcome = workspace.snakemake("smoke", extra=[laid])
    assert outcome.code != 0
    assert not outcome.jobs()
    [line] = [line for line in outcome.text.splitlines() if "error:" in line]
    assert "policies.theirs.lora" in line
    assert "is no safetensors file" in line
