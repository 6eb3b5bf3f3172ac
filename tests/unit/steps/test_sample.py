"""Sampling trained policies: complete, and paired between arms."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tiny_world import ARMS, tiny_policy, tiny_settings

from bpgo.config.runs import Run
from bpgo.config.settings import Settings
from bpgo.errors import NonFiniteError, UserError
from bpgo.steps.prompts import read_prompts, write_prompts
from bpgo.steps.sample import sample_base, sample_run

COLUMNS = ["prompt_id", "text", "ambiguity", "sample", "seed", "iteration", "path", "sha256"]


@pytest.fixture(scope="module")
def settings(tiny_folder: Path) -> Settings:
    names = list(ARMS)
    experiment = tiny_settings(tiny_folder).experiments["tiny"].model_dump() | {"arms": names}
    return tiny_settings(
        tiny_folder, experiments={"tiny": experiment}, evaluation={"samples_per_prompt": 2}
    )


@pytest.fixture(scope="module")
def root(settings: Settings, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prompts, a run whose policies are the base itself, and the base's samples."""
    root = tmp_path_factory.mktemp("sample")
    write_prompts(settings, "evaluation", root / "prompts" / "evaluation.jsonl")
    for folder in ("policy", "snapshots/iteration_000002"):
        tiny_policy(tiny_folder).save(root / "run" / folder)
    sampled(settings, root, "base", "base")
    return root


def sampled(settings: Settings, root: Path, arm: str, name: str, seed: int = 1) -> pd.DataFrame:
    prompts = root / "prompts" / "evaluation.jsonl"
    if arm == "base":
        sample_base(settings, seed, prompts, root / name)
    else:
        sample_run(settings, Run("tiny", arm, seed), prompts, root / "run", root / name)
    return pd.read_parquet(root / name / "index.parquet")


def images(folder: Path, index: pd.DataFrame) -> np.ndarray:
    return np.stack([np.asarray(Image.open(folder / path)) for path in index.path])


def test_index_of_the_base(root: Path) -> None:
    index = pd.read_parquet(root / "base" / "index.parquet")
    prompts = read_prompts(root / "prompts" / "evaluation.jsonl")[:4]
    assert list(index.columns) == COLUMNS
    assert index.prompt_id.tolist() == [name for name in prompts.ids for _ in range(2)]
    assert index.text.tolist() == [text for text in prompts.texts for _ in range(2)]
    assert index["sample"].tolist() == [0, 1] * 4
    assert set(index.iteration) == {0}
    assert set(index.seed) == {1}


def test_index_of_a_run(settings: Settings, root: Path) -> None:
    """Two curve prompts at the snapshot, all four at the end."""
    index = sampled(settings, root, "grpo", "counted")
    assert index.groupby("iteration").prompt_id.nunique().to_dict() == {2: 2, 4: 4}
    assert index.groupby("iteration").size().to_dict() == {2: 4, 4: 8}
    files = {
        path.relative_to(root / "counted").as_posix() for path in (root / "counted").rglob("*.png")
    }
    assert files == set(index.path)
    assert images(root / "counted", index).shape == (12, 24, 24, 3)


def test_arms_and_snapshots_of_a_seed_share_their_noise(settings: Settings, root: Path) -> None:
    """Every policy here is the base's, so equal noise gives equal images."""
    base = pd.read_parquet(root / "base" / "index.parquet")
    expected = dict(
        zip(
            zip(base.prompt_id, base["sample"], strict=True),
            images(root / "base", base),
            strict=True,
        )
    )
    for arm in ("grpo", "flow_grpo"):
        index = sampled(settings, root, arm, arm)
        for row, image in zip(index.itertuples(), images(root / arm, index), strict=True):
            np.testing.assert_array_equal(image, expected[row.prompt_id, row.sample])
    first = images(root / "base", base)
    assert len(np.unique(first.reshape(8, -1), axis=0)) == 8


def test_other_seeds_have_other_noise(settings: Settings, root: Path) -> None:
    base = pd.read_parquet(root / "base" / "index.parquet")
    other = sampled(settings, root, "base", "base_2", seed=2)
    differ = (images(root / "base", base) != images(root / "base_2", other)).any(axis=(1, 2, 3))
    assert differ.all()
    own = ["seed", "sha256"]
    assert other.drop(columns=own).equals(base.drop(columns=own))


def test_trained_weights_are_the_ones_sampled(
    settings: Settings, root: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    base = pd.read_parquet(root / "base" / "index.parquet")
    policy = tiny_policy(tiny_folder)
    policy.transformer.proj_out.weight.data.mul_(1.5)
    shutil.copytree(root / "run", tmp_path / "run")
    shutil.copytree(root / "prompts", tmp_path / "prompts")
    shutil.rmtree(tmp_path / "run" / "policy")
    policy.save(tmp_path / "run" / "policy")
    index = sampled(settings, tmp_path, "grpo", "changed")
    last = index[index.iteration == 4]
    assert (images(tmp_path / "changed", last) != images(root / "base", base)).any()
    early = index[index.iteration == 2]
    same = images(tmp_path / "changed", early) == images(root / "base", base.iloc[:4])
    assert same.all()


def test_broken_weights_are_told(
    settings: Settings, root: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    """Pixels that are no numbers would be black, and be scored."""
    policy = tiny_policy(tiny_folder)
    policy.transformer.proj_out.weight.data[0] = float("nan")
    shutil.copytree(root / "prompts", tmp_path / "prompts")
    for folder in ("policy", "snapshots/iteration_000002"):
        policy.save(tmp_path / "run" / folder)
    with pytest.raises(NonFiniteError, match="sample 0 of prompt 'evaluation-00000' is not finite"):
        sampled(settings, tmp_path, "grpo", "out")
    assert not (tmp_path / "out" / "index.parquet").exists()


def test_a_missing_policy_is_named(settings: Settings, root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "prompts", tmp_path / "prompts")
    tiny = tmp_path / "run" / "policy"
    shutil.copytree(root / "run" / "policy", tiny)
    with pytest.raises(UserError, match="there is no trained policy") as caught:
        sampled(settings, tmp_path, "grpo", "out")
    assert "iteration_000002" in str(caught.value)
    assert not (tmp_path / "out" / "index.parquet").exists()


def test_only_trained_runs_are_sampled_as_runs(settings: Settings, root: Path) -> None:
    prompts = root / "prompts" / "evaluation.jsonl"
    with pytest.raises(UserError, match="--arm: 'base' is the untrained policy: `sample-base`"):
        sample_run(settings, Run("tiny", "base", 1), prompts, root / "run", root / "never")
    with pytest.raises(UserError, match=r"'gpro' is unknown\. Did you mean 'grpo'\?"):
        sample_run(settings, Run("tiny", "gpro", 1), prompts, root / "run", root / "never")
    assert not (root / "never").exists()


def test_too_few_prompts(tiny_folder: Path, root: Path) -> None:
    settings = tiny_settings(tiny_folder, evaluation={"prompts": 7})
    with pytest.raises(UserError, match="holds 6 prompts, but 7 are needed"):
        sampled(settings, root, "base", "never")
