"""`--use-conda` for real: the environment files are solved and installed, jobs run in them."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from harness import REPOSITORY, Workspace, run
from PIL import Image
from rewards.make_image_reward import PROMPTS, make_image
from tiny_image_reward import build_tiny_image_reward, image_reward_overrides

from bpgo.files import read_json, write_text

SCRIPT = [sys.executable, str(Path(__file__).with_name("run_script.py"))]
SAME_SIZE = (1, 6)  # images of one size among those of the official scores


@pytest.fixture(scope="module")
def conda(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Options of Snakemake, with a conda command and a channel that need no network.

    BPGO_CONDA_TOOLS names a folder with `make_channel.py` (packs the running Python as a channel)
    and `standin/bin/conda`, which needs py-rattler and uv.
    """
    tools = os.environ.get("BPGO_CONDA_TOOLS")
    if not tools:
        pytest.skip("BPGO_CONDA_TOOLS names no folder with a conda command and a local channel")
    folder = tmp_path_factory.mktemp("conda")
    channel, command = folder / "channel", folder / "bin" / "conda"
    made = run([*SCRIPT, str(Path(tools, "make_channel.py")), str(channel)])
    assert made.code == 0, made.text
    standin = Path(tools, "standin", "bin")
    call = shlex.join([*SCRIPT, str(standin / "conda")])
    write_text(command, f'#!/bin/sh\nexec {call} "$@"\n')
    command.chmod(0o755)
    search = [str(command.parent), str(standin), str(Path(sys.executable).parent)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", os.pathsep.join([*search, os.environ["PATH"]]))
        patch.setenv("STANDIN_CHANNEL", f"file://{channel}")
        patch.setenv("STANDIN_CACHE", str(folder / "cache"))
        if places := os.environ.get("PIP_FIND_LINKS"):  # uv has a name of its own for it
            patch.setenv("UV_FIND_LINKS", places)
        yield ["--use-conda", "--conda-prefix", str(folder / "environments")]
    shutil.rmtree(folder)  # gigabytes


@pytest.mark.slow
def test_jobs_run_in_a_conda_environment(workspace: Workspace, conda: list[str]) -> None:
    made = "results/smoke/prompts/train.jsonl"
    outcome = workspace.snakemake(*conda, "--", made)
    assert outcome.code == 0, outcome.text
    assert workspace.path(made).exists()
    assert list(Path(conda[-1]).glob("*/bin/python"))


@pytest.mark.slow
def test_a_reward_runs_in_an_environment_of_its_own(workspace: Workspace, conda: list[str]) -> None:
    """The official ImageReward package, with libraries that ours could not import."""
    files = build_tiny_image_reward(workspace.path("tiny"))
    workspace.edit(lambda values: add_official_judge(values, files))
    folder = workspace.path("results/smoke/samples/ambiguous/base/seed_1")
    write_samples(folder)
    write_text(workspace.path("results/smoke/prompts/evaluation.jsonl"), "{}")
    os.utime(workspace.path("results/smoke/prompts/evaluation.jsonl"), (0, 0))
    made = "results/smoke/scores/ambiguous/base/seed_1/image_reward.parquet"

    without = workspace.snakemake("--", made)
    assert without.code != 0
    assert "No module named 'ImageReward'" in without.text
    assert "workflow/envs/image_reward.yaml" in without.text
    assert "--use-conda" in without.text

    outcome = workspace.snakemake(*conda, "--", made)
    assert outcome.code == 0, outcome.text
    assert outcome.jobs() == {"score": 1}
    scores = pd.read_parquet(workspace.path(made))
    official = read_json(REPOSITORY / "tests/fixtures/rewards/image_reward.json")["scores"]
    assert set(scores.reward) == {"image_reward_official"}
    assert scores.score.tolist() == pytest.approx([official[k] for k in SAME_SIZE], rel=1e-5)


def add_official_judge(values: dict[str, Any], files: Path) -> None:
    """The smoke run of `ambiguous` is also judged by the official ImageReward of `files`."""
    values["experiments"]["ambiguous"]["judges"].append("image_reward_official")
    overrides = {"image_reward_official": image_reward_overrides(files)}
    values["overrides"] = {"rewards": overrides}


def write_samples(folder: Path) -> None:
    """Samples as `bpgo sample` writes them, of the images and prompts of the official scores."""
    rows = []
    for index in SAME_SIZE:
        image = Image.fromarray(make_image(index))
        (folder / "images").mkdir(parents=True, exist_ok=True)
        image.save(folder / "images" / f"{index}.png")
        row = {"prompt_id": f"p{index}", "text": PROMPTS[index], "ambiguity": 0.0, "sample": 0}
        rows.append({**row, "iteration": 0, "path": f"images/{index}.png"})
    pd.DataFrame(rows).to_parquet(folder / "index.parquet", index=False)
