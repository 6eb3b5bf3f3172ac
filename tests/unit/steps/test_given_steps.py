"""Policies that were trained elsewhere, from their files to the tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from calibrated import draw_calibrate_judge
from PIL import Image
from their_policies import save_their_policies

from bpgo.analysis.collect import collect
from bpgo.analysis.statistics.compute import compute_statistics
from bpgo.analysis.tables.make import make_tables
from bpgo.config.jobs import samples_folder
from bpgo.config.resolve import WORKFLOW_OPTIONS, default_configfile, read_yaml, resolve
from bpgo.config.runs import Run
from bpgo.config.settings import MAIN, Settings
from bpgo.steps.harm import harm_run
from bpgo.steps.prompts import write_prompts
from bpgo.steps.sample import sample_base, sample_run
from bpgo.steps.score import score_run
from bpgo.steps.train import train
from bpgo.storage.files import read_json, sha256

WORLD = "clear"


def few(policies: dict[str, dict[str, str]], parameters: str = "full") -> Settings:
    """One world and two seeds, few of everything; the last two policies of a run are its end."""
    file = default_configfile()
    values = {k: v for k, v in read_yaml(file).items() if k not in WORKFLOW_OPTIONS}
    world = values["experiments"][WORLD] | {"arms": ["grpo"], "seeds": [1, 2]}
    values["experiments"] = {WORLD: {k: v for k, v in world.items() if k != "primary"}}
    values["training"] |= {"iterations": 2, "snapshot_every": 1, "checkpoint_every": 1}
    values["training"] |= {"parameters": parameters, "learning_rate": 1e-3}
    values["rollout"] |= {"prompts_per_iteration": 2, "group_size": 4}
    values["calibration"] |= {"prompts": 4, "samples_per_prompt": 4}
    few_samples = {"divergence_prompts": 2, "diversity_prompts": 2, "diversity_samples": 2}
    values["evaluation"] |= {"prompts": 4, "batch_size": 4, **few_samples}
    values["analysis"] |= {"bootstrap_samples": 20, "final_stages": 2, "own_variance": []}
    values |= {"sweeps": {}, "smoke": {}, "policies": policies}
    return resolve(values, file.parent, file.name, whole=False)


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """A LoRA of rank 3, with no word of its alpha, and whole weights that are the base policy's."""
    folder = tmp_path_factory.mktemp("theirs")
    save_their_policies(few({}), folder, scale=0.3)
    return {
        "theirs": {"title": "Their LoRA", "lora": str(folder / "their_lora.safetensors")},
        "whole": {"title": "Their weights", "weights": str(folder / "whole")},
    }


@pytest.fixture(scope="module")
def root(policies: dict[str, dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the workflow's jobs make of the base policy and both given ones; nothing is trained."""
    root, settings = tmp_path_factory.mktemp("results"), few(policies)
    prompts = root / "prompts" / "evaluation.jsonl"
    write_prompts(settings, "evaluation", prompts)
    for seed in (1, 2):
        base = root / "samples" / f"base/seed_{seed}"
        sample_base(settings, seed, prompts, base)
        score_run(settings, Run(WORLD, "base", seed), base, MAIN, scores(root, "base", seed))
        for name in policies:
            run = Run(WORLD, name, seed)
            samples = root / "samples" / samples_folder(run, settings)
            sample_run(settings, Run("given", name, seed), prompts, root / "none", samples)
            score_run(settings, run, samples, MAIN, scores(root, name, seed))
            harm = root / "harm" / f"{run.folder}.parquet"
            harm_run(settings, run, prompts, root / "none", samples, base, harm)
    return root


@pytest.mark.parametrize("parameters", ["full", "lora"])
def test_a_run_that_is_given_back_is_what_it_was(parameters: str, tmp_path: Path) -> None:
    """A trained policy or LoRA as a given one: the same samples, scores and harm, to the bit."""
    settings, run = few({}, parameters), Run(WORLD, "grpo", 1)
    for split in ("train", "evaluation"):
        write_prompts(settings, split, tmp_path / "prompts" / f"{split}.jsonl")
    calibration, trained = tmp_path / "calibration", tmp_path / "run"
    draw_calibrate_judge(settings, WORLD, tmp_path / "prompts" / "train.jsonl", calibration)
    prompts = tmp_path / "prompts" / "train.jsonl"
    train(settings, run, prompts, calibration / "calibration.json", trained)
    base = tmp_path / "base"
    sample_base(settings, 1, tmp_path / "prompts" / "evaluation.jsonl", base)
    own = measured(settings, run, tmp_path, trained, base)

    key = "lora" if parameters == "lora" else "weights"
    again = few({"again": {"title": "Again", key: str(trained / "policy")}}, parameters)
    run = Run(WORLD, "again", 1)
    given = measured(again, run, tmp_path, tmp_path / "none", base)
    assert len(own[0]) == 4 * 5, "prompts and judges"
    assert len(own[1]) == 2 + 2 * 2 + 1, "kl, vendi and distance of two prompts each, and kid"
    assert own[1].loc["kl"].gt(0).all().all(), "it was trained"
    for mine, theirs in zip(own, given, strict=True):
        pd.testing.assert_frame_equal(mine, theirs, check_exact=True)


def measured(
    settings: Settings, run: Run, root: Path, trained: Path, base: Path
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The scores and the harm of a policy as it is in the end."""
    prompts, samples = root / "prompts" / "evaluation.jsonl", root / run.arm
    sample_run(settings, run, prompts, trained, samples)
    score_run(settings, run, samples, MAIN, root / f"{run.arm}_scores.parquet")
    harm_run(settings, run, prompts, trained, samples, base, root / f"{run.arm}_harm.parquet")
    found = []
    for name, keys, value in (
        ("scores", ["reward", "prompt_id"], "score"),
        ("harm", ["measure", "prompt_id"], "value"),
    ):
        table = pd.read_parquet(root / f"{run.arm}_{name}.parquet")
        last = table[table["iteration"] == table["iteration"].max()]
        found.append(last.set_index(keys)[[value]].sort_index())
    return found[0], found[1]


def scores(root: Path, arm: str, seed: int) -> Path:
    return root / "scores" / WORLD / arm / f"seed_{seed}" / "main.parquet"


def images(folder: Path) -> np.ndarray:
    index = pd.read_parquet(folder / "index.parquet")
    assert index["prompt_id"].nunique() == len(index) == 4
    assert set(index["iteration"]) == {0}
    return np.stack([np.asarray(Image.open(folder / path)) for path in index["path"]])


def test_the_same_sampler_and_noise(root: Path) -> None:
    """Whole weights that are the base policy's draw its images; a LoRA draws others."""
    for seed in (1, 2):
        base, whole, theirs = (
            images(root / "samples" / name / f"seed_{seed}")
            for name in ("base", "given/whole", "given/theirs")
        )
        assert np.array_equal(base, whole)
        assert np.abs(base.astype(int) - theirs).max() > 10


def test_harm_is_measured(root: Path) -> None:
    found = {
        name: pd.read_parquet(root / "harm" / WORLD / name / "seed_1.parquet")
        for name in ("whole", "theirs")
    }
    for table in found.values():
        assert set(table["measure"]) == {"kl", "vendi", "distance", "kid"}
    kl = {name: table[table["measure"] == "kl"]["value"] for name, table in found.items()}
    assert (kl["whole"] == 0).all()
    assert (kl["theirs"] > 0).all()


def test_each_is_a_row_of_the_tables(
    root: Path, policies: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    settings = few(policies)
    collect(settings, root, tmp_path / "collected")
    account = read_json(tmp_path / "collected" / "runs.json")
    assert {entry["arm"] for entry in account["missing"]} == {"base", "grpo"}  # none was trained
    file = Path(policies["theirs"]["lora"])
    assert account["policies"]["theirs"]["files"] == {file.name: sha256(file)}
    compute_statistics(settings, tmp_path / "collected", tmp_path / "statistics")
    make_tables(settings, tmp_path / "statistics", tmp_path / "tables")
    main = pd.read_csv(tmp_path / "tables" / "main.csv")
    means = main[main["reward"] == "oracle"].set_index("arm")["mean"]
    assert means["whole"] == means["base"]
    assert means["theirs"] != means["base"]
    assert set(main.loc[main["arm"] == "theirs", "n_seeds"]) == {2}
    gaps = pd.read_csv(tmp_path / "tables" / "differences.csv")
    gaps = gaps[(gaps["reference"] == "base") & (gaps["reward"] == "oracle")].set_index("arm")
    assert gaps.loc["whole", "difference"] == 0
    assert gaps.loc["theirs", "difference"] != 0
    for name in ("main", "differences", "harm"):
        text = (tmp_path / "tables" / f"{name}.md").read_text(encoding="utf-8")
        assert "Their LoRA (given)" in text, name
        assert "Their weights (given)" in text, name
