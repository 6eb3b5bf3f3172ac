"""What was lost, changed or put in another's place since it was made is found before any table."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import synthetic

from bpgo.analysis.collect import collect
from bpgo.analysis.statistics.compute import compute_statistics, load_statistics
from bpgo.config import contents
from bpgo.config.settings import Settings
from bpgo.errors import UserError
from bpgo.storage.files import read_json, write_json
from bpgo.storage.tables import read_table, write_table

RUN = "runs/ambiguous/grpo/seed_1"
SCORES = "scores/ambiguous/grpo/seed_1/main.parquet"
SAMPLES = "calibration/ambiguous/samples.parquet"
TABLES = [f"{RUN}/metrics.parquet", f"{RUN}/rollouts.parquet", SCORES, SAMPLES]


@pytest.fixture(scope="module")
def settings() -> Settings:
    made: Settings = synthetic.make_settings(**synthetic.TINY | {"seeds": (1,)})
    return made


@pytest.fixture(scope="module")
def whole(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Finished runs, whose files say whose they are."""
    root = tmp_path_factory.mktemp("whole")
    synthetic.write_root(settings, root)
    for run in [*settings.base_runs(), *settings.runs()]:
        seal(root / "scores" / run.folder / "main.parquet", contents.scores(settings, run, "main"))
    for run in settings.runs():
        for name in ("metrics", "rollouts"):
            of = contents.training(settings, run, name)
            seal(root / "runs" / run.folder / f"{name}.parquet", of)
    samples = root / "calibration" / "ambiguous" / "samples.parquet"
    seal(samples, contents.calibration_scores(settings, "ambiguous"))
    (samples.with_name("scales.json")).write_text("{}")
    collect(settings, root, root / "collected")
    compute_statistics(settings, root / "collected", root / "statistics")
    return root


@pytest.fixture
def root(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "results"))


def seal(path: Path, of: str) -> None:
    write_table(read_table(path, ""), path, of)


def refusal(settings: Settings, root: Path) -> str:
    with pytest.raises(UserError) as caught:
        collect(settings, root, root / "again")
    assert not (root / "again").exists()
    return str(caught.value)


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize(
    "change",
    [
        lambda table: table[:0],
        lambda table: table.assign(**{table.columns[-1]: table.iloc[:, -1] + 1}),
        lambda table: table.assign(arm="bpgo"),
    ],
    ids=["emptied", "other numbers", "another arm"],
)
def test_a_table_changed_by_hand(
    name: str, change: Callable[..., Any], settings: Settings, root: Path
) -> None:
    change(pd.read_parquet(root / name)).to_parquet(root / name, index=False)
    message = refusal(settings, root)
    assert message.startswith(f"{root / name}: has no seal: it was changed")
    assert "--allow-mixed" in message


@pytest.mark.parametrize("name", TABLES[:3])
def test_another_runs_table(name: str, settings: Settings, root: Path) -> None:
    shutil.copy(root / name.replace("grpo", "bpgo"), root / name)
    message = refusal(settings, root)
    assert message.startswith(f"{root / name}: holds the ")
    assert " of ambiguous/bpgo/seed_1 (settings " in message
    assert "not the " in message
    assert " of ambiguous/grpo/seed_1 (settings " in message


@pytest.mark.parametrize("name", [*TABLES[:2], SAMPLES, f"{RUN}/manifest.json"])
def test_a_lost_file_of_a_finished_job(name: str, settings: Settings, root: Path) -> None:
    (root / name).unlink()
    assert f"{root / name}: no such file" in refusal(settings, root)


def test_lost_scores_are_said(
    settings: Settings, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / SCORES).unlink()
    collect(settings, root, root / "again")
    said = capsys.readouterr().err
    assert said.startswith("missing: ambiguous/grpo/seed_1: no scores by scenes_ambiguous_a")
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("cut", "cannot be read as JSON"),
        ("null", "holds None, which is not an object"),
        ("[]", "holds [], which is not an object"),
        ("{}", "has no 'config_digest'"),
        ({"wall_seconds": "x"}, "wall_seconds is 'x', which is not a number"),
        ({"packages": 3}, "packages is 3, which is not an object"),
        ({"code": {"a.py": None}}, "code.a.py is None, no digest"),
    ],
)
def test_a_manifest_that_is_none(change: Any, reason: str, settings: Settings, root: Path) -> None:
    path = root / RUN / "manifest.json"
    if isinstance(change, dict):
        write_json(path, read_json(path) | change)
    else:
        path.write_text(path.read_text()[:100] if change == "cut" else change)
    message = refusal(settings, root)
    assert message.startswith(f"{path}: {reason}")
    assert message.endswith("remove the run, and train it again")


@pytest.mark.parametrize("name", ["scores", "metrics", "groups", "calibration"])
def test_a_collected_table_changed_by_hand(name: str, settings: Settings, root: Path) -> None:
    path = root / "collected" / f"{name}.parquet"
    table = pd.read_parquet(path)
    table[: len(table) // 2].to_parquet(path, index=False)
    with pytest.raises(UserError, match=r"was changed after it was collected.*run `collect` again"):
        compute_statistics(settings, root / "collected", root / "again")


def test_a_lost_collected_table(settings: Settings, root: Path) -> None:
    (root / "collected" / "harm.parquet").unlink()
    with pytest.raises(UserError, match=r"harm\.parquet: no such file; run `collect` first"):
        compute_statistics(settings, root / "collected", root / "again")


def test_a_lost_account_is_said(
    settings: Settings, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = root / "collected" / "runs.json"
    path.unlink()
    compute_statistics(settings, root / "collected", root / "again")
    assert capsys.readouterr().err.startswith(f"missing: {path}: ")
    path.write_text("{}")
    with pytest.raises(UserError, match=r"runs\.json: has no 'config_digest'; run `collect`"):
        compute_statistics(settings, root / "collected", root / "again")


@pytest.mark.parametrize("folder", ["collected", "statistics"])
@pytest.mark.parametrize("text", ["null", "[]", '{"missing": 3}', '{"runs": [', "changed"])
def test_an_account_that_is_none(folder: str, text: str, settings: Settings, root: Path) -> None:
    path = root / folder / "runs.json"
    whole = path.read_text().replace('"expected_runs": 2', '"expected_runs": 1')
    path.write_text(whole if text == "changed" else text)
    with pytest.raises(UserError, match=r"runs\.json: "):
        if folder == "collected":
            compute_statistics(settings, root / "collected", root / "again")
        else:
            load_statistics(root / "statistics")


def test_files_of_earlier_versions_are_taken_where_mixing_is_allowed(
    settings: Settings, root: Path
) -> None:
    for name in TABLES:
        pd.read_parquet(root / name).to_parquet(root / name, index=False)
    assert "has no seal" in refusal(settings, root)
    collect(settings, root, root / "again", allow_mixed=True)
    for name in ("scores", "metrics", "groups", "calibration"):
        file = f"{name}.parquet"
        assert (root / "again" / file).read_bytes() == (root / "collected" / file).read_bytes()
