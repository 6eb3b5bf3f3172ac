"""What is measured of a policy beside its scores."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch
from tiny_world import tiny_policy, tiny_settings

from bpgo.config import jobs
from bpgo.config.runs import Run
from bpgo.config.settings import Settings
from bpgo.errors import UserError
from bpgo.scenes.image.features import ScenesFeatureSettings
from bpgo.steps.harm import harm_base, harm_run
from bpgo.steps.prompts import write_prompts
from bpgo.steps.sample import sample_base, sample_run
from bpgo.storage.tables import write_table

RUN = Run("tiny", "grpo", 1)
MEASURED = {"divergence_prompts": 3, "diversity_prompts": 2, "diversity_samples": 3}


def tiny(folder: Path, **evaluation: int) -> Settings:
    settings = tiny_settings(folder, evaluation=MEASURED | evaluation)
    features = ScenesFeatureSettings(title="Cells")
    return settings.model_copy(update={"features": features})


@pytest.fixture(scope="module")
def root(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose snapshot is the base policy, and whose final policy is not; their samples."""
    root, settings = tmp_path_factory.mktemp("harm"), tiny(tiny_folder)
    prompts = root / "prompts" / "evaluation.jsonl"
    write_prompts(settings, "evaluation", prompts)
    tiny_policy(tiny_folder).save(root / "run" / "snapshots" / "iteration_000002")
    moved = tiny_policy(tiny_folder)
    with torch.no_grad():
        for value in moved.trainable().values():
            value.mul_(1.1)
    moved.save(root / "run" / "policy")
    sample_base(settings, 1, prompts, root / "base")
    sample_run(settings, RUN, prompts, root / "run", root / "samples")
    for folder in ("base", "samples"):  # tests measure them by other settings: theirs are not said
        index = root / folder / "index.parquet"
        write_table(pd.read_parquet(index), index)
    return root


def measured(settings: Settings, root: Path, output: Path) -> pd.DataFrame:
    prompts = root / "prompts" / "evaluation.jsonl"
    harm_run(settings, RUN, prompts, root / "run", root / "samples", root / "base", output)
    return pd.read_parquet(output)


def test_every_measure_of_a_run(tiny_folder: Path, root: Path, tmp_path: Path) -> None:
    table = measured(tiny(tiny_folder), root, tmp_path / "run.parquet")
    sizes = table.groupby(["measure", "iteration"]).size().to_dict()
    assert sizes == {
        ("kl", 2): 3,
        ("kl", 4): 3,
        ("vendi", 4): 2,
        ("distance", 4): 2,
        ("kid", 4): 1,
    }
    values = table.set_index(["measure", "iteration"])["value"]
    assert (values["kl", 2] == 0).all(), "the snapshot is the base policy"
    assert (values["kl", 4] > 0).all()
    assert values["vendi", 4].between(1, 3).all()


def test_divergence_is_of_the_steps_with_noise(
    tiny_folder: Path, root: Path, tmp_path: Path
) -> None:
    """A sum over the path's first steps: with fewer of these, it is less."""
    settings = tiny(tiny_folder, diversity_prompts=0)
    found = []
    for number in (1, 2, 3, None):
        grpo = settings.arms["grpo"].model_copy(update={"stochastic_steps": number})
        changed = settings.model_copy(update={"arms": settings.arms | {"grpo": grpo}})
        table = measured(changed, root, tmp_path / f"{number}.parquet")
        kl = table[(table["measure"] == "kl") & (table["iteration"] == 4)]
        found.append(kl["value"].to_numpy())
    one, two, three, every = found
    assert (one < two).all()
    assert (two < three).all()
    assert (three == every).all()


def test_only_what_is_asked_for(tiny_folder: Path, root: Path, tmp_path: Path) -> None:
    settings = tiny(tiny_folder, divergence_prompts=0, diversity_prompts=0)
    table = measured(settings, root, tmp_path / "kid.parquet")
    assert table["measure"].tolist() == ["kid"]
    settings = tiny(tiny_folder, diversity_prompts=0).model_copy(update={"features": None})
    table = measured(settings, root, tmp_path / "kl.parquet")
    assert set(table["measure"]) == {"kl"}


def test_the_base_policy_has_diversity_alone(tiny_folder: Path, root: Path, tmp_path: Path) -> None:
    settings, prompts = tiny(tiny_folder), root / "prompts" / "evaluation.jsonl"
    harm_base(settings, 1, prompts, tmp_path / "base.parquet")
    table = pd.read_parquet(tmp_path / "base.parquet")
    assert table.groupby("measure").size().to_dict() == {"vendi": 2, "distance": 2}
    assert set(table["iteration"]) == {0}
    # A run of the same policy measures the same.
    tiny_policy(tiny_folder).save(root / "same" / "policy")
    changed = settings.model_copy(
        update={"training": settings.training.model_copy(update={"snapshot_every": 4})}
    )
    given = (changed, RUN, prompts, root / "same", root / "samples", root / "base")
    harm_run(*given, tmp_path / "same.parquet")
    again = pd.read_parquet(tmp_path / "same.parquet")
    again = again[again["measure"].isin(["vendi", "distance"])]
    assert again["value"].tolist() == table["value"].tolist()


def test_bad_input_is_said_in_one_line(tiny_folder: Path, root: Path, tmp_path: Path) -> None:
    settings, prompts = tiny(tiny_folder), root / "prompts" / "evaluation.jsonl"
    folders = (root / "run", root / "samples", root / "base", tmp_path / "out.parquet")
    with pytest.raises(UserError, match="harm-base"):
        harm_run(settings, Run("tiny", "base", 1), prompts, *folders)
    kid = tiny(tiny_folder, divergence_prompts=0, diversity_prompts=0)
    with pytest.raises(UserError, match="run `sample` again"):
        harm_run(kid, RUN, prompts, root / "run", tmp_path, root / "base", tmp_path / "o")
    assert not (tmp_path / "out.parquet").exists()


def test_digests_of_samples_do_not_know_what_is_measured(tiny_folder: Path) -> None:
    one, other = tiny(tiny_folder), tiny(tiny_folder, divergence_prompts=1, diversity_samples=5)
    for run in (RUN, Run("", "base", 1)):
        assert jobs.sample_digest(one, run) == jobs.sample_digest(other, run)
        assert jobs.harm_digest(one, run) != jobs.harm_digest(other, run)
        plain = one.model_copy(update={"features": None})
        assert jobs.harm_digest(one, run) != jobs.harm_digest(plain, run)
    assert one.run_digest(RUN) == other.run_digest(RUN)
