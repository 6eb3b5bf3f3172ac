"""The embedded video world's smoke DAG, both tasks, from nothing to the report."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import pandas as pd
import pytest
import yaml
from harness import Workspace, workspace_in
from PIL import Image

from bpgo.analysis.grids import BYTES
from bpgo.analysis.tables.paper import CAPTIONS, paper_table
from bpgo.config.jobs import samples_folder
from bpgo.config.resolve import load_resolved
from bpgo.config.settings import CLIP_SHARE, Settings
from bpgo.storage.clips import read_clip
from bpgo.storage.files import read_json

ROOTS = ("results/scenes_t2v/smoke", "results/scenes_i2v/smoke")
TABLES = {"results/scenes_t2v/smoke": {"main": "table1", "parts": "table3", "sweep": "table4"}}
TABLES["results/scenes_i2v/smoke"] = {"main": "table1", "parts": "table3"}
PAGE = 4 * BYTES  # of moving pictures, figures and stills together


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace in which `video_smoke` has run."""
    workspace = workspace_in(tmp_path_factory.mktemp("video"))
    outcome = workspace.snakemake("video_smoke")
    assert outcome.code == 0, outcome.text
    return workspace


@pytest.fixture(params=ROOTS, ids=["t2v", "i2v"])
def root(request: pytest.FixtureRequest, finished: Workspace) -> Path:
    """The results of one task."""
    return finished.path(request.param)


def settings_of(root: Path) -> Settings:
    [file] = root.glob("config/*.yaml")
    return load_resolved(file)


@pytest.mark.slow
def test_every_run_is_of_this_configuration(root: Path) -> None:
    settings = settings_of(root)
    for run in settings.runs():
        folder = root / "runs" / run.folder
        manifest = read_json(folder / "manifest.json")
        assert manifest["config_digest"] == settings.run_digest(run)
        metrics = pd.read_parquet(folder / "metrics.parquet")
        assert len(metrics) == settings.training.iterations
        tolerance = CLIP_SHARE * settings.arms[run.arm].clip_range
        assert (metrics["ratio_deviation"] <= tolerance).all()
        assert (metrics["gradient_norm"] > 0).all()


@pytest.mark.slow
def test_every_sample_is_a_clip_of_the_models_size(root: Path) -> None:
    settings = settings_of(root)
    model, evaluation = settings.model, settings.evaluation
    shape = (model.frames, 3, model.resolution, model.columns)
    for run in [*settings.base_runs(), *settings.runs()]:
        folder = root / "samples" / samples_folder(run, settings)
        index = pd.read_parquet(folder / "index.parquet")
        last = index[index["iteration"] == index["iteration"].max()]
        assert len(last) == evaluation.prompts * evaluation.samples_per_prompt
        assert {path.suffix for path in map(Path, index["path"])} == {".mp4"}
        for path in index["path"]:
            assert read_clip(folder / path).shape == shape
        assert (folder / last["path"].iloc[0]).with_name("contact_sheet.png").is_file()


@pytest.mark.slow
def test_every_judge_scores_every_sample(root: Path) -> None:
    settings = settings_of(root)
    scores = pd.read_parquet(root / "collected" / "scores.parquet")
    [experiment] = settings.experiments
    judges = set(settings.rewards_of(experiment))
    assert {"video_a", "video_b", "video_c", "video_oracle"} < judges
    assert set(scores["reward"]) == judges
    for run in [*settings.base_runs(), *settings.runs()]:
        index = pd.read_parquet(root / "samples" / samples_folder(run, settings) / "index.parquet")
        mine = scores[(scores["arm"] == run.arm) & (scores["seed"] == run.seed)]
        assert mine.groupby("reward", observed=True).size().to_dict() == dict.fromkeys(
            judges, len(index)
        )
    spread = scores.groupby("reward", observed=True)["score"].std()
    assert (spread > 0).all(), "a judge that scores all clips alike judges nothing"


@pytest.mark.slow
def test_tables_show_the_papers_numbers_beside_ours(root: Path) -> None:
    settings, task = settings_of(root), "T2V" if "t2v" in str(root) else "I2V"
    [experiment] = settings.experiments
    wanted = TABLES[f"results/{root.parent.name}/smoke"]
    for name, source in wanted.items():
        text = (root / "tables" / f"{name}.md").read_text().replace("−", "-")
        assert CAPTIONS[source] in text
        theirs = paper_table(source)
        theirs = theirs[theirs["task"].str.startswith(task)]
        assert len(theirs) > 2
        assert all(value in text for value in theirs["value"])
    main = pd.read_csv(root / "tables" / "main.csv")
    assert set(main["arm"]) == {"base", *(run.arm for run in settings.runs())}
    assert set(main["reward"]) == set(settings.rewards_of(experiment))
    if "sweep" in wanted:
        sweep = pd.read_csv(root / "tables" / "sweep.csv")
        assert {0.5, 0.9} <= set(sweep["value"]), "the arm's own alpha, and the sweep's"


@pytest.mark.slow
def test_the_report_shows_moving_clips(root: Path) -> None:
    settings, page = settings_of(root), (root / "report" / "index.html").read_text()
    assert len(page) <= PAGE
    [moving] = re.findall(r'src="data:image/webp;base64,([^"]+)"', page)
    content = base64.b64decode(moving)
    [experiment] = settings.experiments
    assert content == (root / "grids" / f"{experiment}.webp").read_bytes()
    assert len(content) <= BYTES
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.n_frames == settings.model.frames
    assert not re.search(r'(?:src|href)="https?://[^"]*\.(?:js|css|png|webp)"', page)


@pytest.mark.slow
def test_nothing_is_left_to_do(finished: Workspace) -> None:
    assert "Nothing to be done" in finished.snakemake("--dry-run", "video_smoke").text


def test_a_missing_first_frame_stops_before_any_job(workspace: Workspace) -> None:
    prompts = workspace.path("prompts.tsv")
    prompts.write_text("prompt\tframe\na ball rolls\tball.png\na ball rests\tball.png\n")
    entry = {"path": str(prompts), "first_frame_column": "frame"}
    values = {"kind": "file", "train": 1, "evaluation": 1, "files": {"mine": entry}}
    workspace.path("config/prompts/mine.yaml").write_text(yaml.safe_dump(values))
    workspace.edit(lambda values: values.update(prompts="mine"), "scenes_i2v")
    outcome = workspace.with_config("scenes_i2v").snakemake()
    assert outcome.code != 0
    errors = [line for line in outcome.text.splitlines() if line.startswith("error: ")]
    frame = workspace.path("ball.png")
    place = f"{workspace.path('config/prompts/mine.yaml')}, line 3: files.mine"
    assert errors == [f"error: {place}: {prompts}, line 2: there is no first frame {frame}"]
    assert "Traceback" not in outcome.text
    assert not outcome.jobs()
    assert not workspace.path("results").exists()
