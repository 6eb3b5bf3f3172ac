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
from tiny_rewards import build_tiny_rewards, parity_inputs

from bpgo.storage.files import read_json, write_text
from bpgo.storage.tables import write_table

SCRIPT = [sys.executable, str(Path(__file__).with_name("run_script.py"))]


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
@pytest.mark.parametrize("environment", ["image_reward", "hpsv2"])
def test_an_official_package_judges_in_its_own_environment(
    workspace: Workspace, conda: list[str], environment: str
) -> None:
    """Its scores are those kept in tests/fixtures/rewards."""
    if environment != "image_reward" and not os.environ.get("BPGO_ALL_ENVIRONMENTS"):
        pytest.skip("a minute more for the same machinery; BPGO_ALL_ENVIRONMENTS=1 runs it")
    judge = f"{environment}_official"
    overrides = build_tiny_rewards(workspace.path("tiny"))[judge]
    workspace.edit(lambda values: add_judge(values, judge, overrides))
    pairs = image_reward_pairs() if environment == "image_reward" else hpsv2_pairs()
    write_samples(workspace, pairs)
    made = f"results/smoke/scores/ambiguous/base/seed_1/{environment}.parquet"

    outcome = workspace.snakemake(*conda, "--", made)
    assert outcome.code == 0, outcome.text
    assert outcome.jobs() == {"score": 1}
    scores = pd.read_parquet(workspace.path(made))
    official = read_json(REPOSITORY / "tests" / "fixtures" / "rewards" / f"{environment}.json")
    assert set(scores.reward) == {judge}
    assert scores.score.tolist() == pytest.approx(official["scores"], rel=1e-5)


def add_judge(values: dict[str, Any], judge: str, overrides: dict[str, Any]) -> None:
    """One more judge of the world `ambiguous`; images of several sizes are read one by one."""
    values["experiments"]["ambiguous"]["judges"].append(judge)
    values["overrides"] = {"rewards": {judge: overrides}}
    values["evaluation"]["batch_size"] = 1


def image_reward_pairs() -> list[tuple[Image.Image, str]]:
    """What make_image_reward.py has scored."""
    return [(Image.fromarray(make_image(k)), prompt) for k, prompt in enumerate(PROMPTS)]


def hpsv2_pairs() -> list[tuple[Image.Image, str]]:
    """What make_hpsv2.py has scored."""
    images, prompts = parity_inputs()
    levels = [(image * 255).round().byte().permute(1, 2, 0).numpy() for image in images]
    return list(zip(map(Image.fromarray, levels), prompts, strict=True))


def write_samples(workspace: Workspace, pairs: list[tuple[Image.Image, str]]) -> None:
    """Samples of the base policy as `bpgo sample` writes them, and older prompts."""
    folder = workspace.path("results/smoke/samples/base/seed_1")
    folder.mkdir(parents=True)
    rows = []
    for index, (image, prompt) in enumerate(pairs):
        image.save(folder / f"{index}.png")
        row = {"prompt_id": f"p{index}", "text": prompt, "ambiguity": 0.0, "sample": 0}
        rows.append({**row, "iteration": 0, "path": f"{index}.png"})
    write_table(pd.DataFrame(rows), folder / "index.parquet")
    prompts = workspace.path("results/smoke/prompts/evaluation.jsonl")
    write_text(prompts, "{}")
    os.utime(prompts, (0, 0))
