"""`make clean` removes what the embedded default made, and nothing that took GPU-weeks."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from harness import REPOSITORY


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A Makefile, with results behind a link to a larger disk."""
    disk, clone = tmp_path / "disk", tmp_path / "clone"
    for name in ("reference", "runs", "smoke", "flux_t2i"):
        (disk / name).mkdir(parents=True)
        (disk / name / "weights").write_text("weights")
    for name in (".snakemake", ".mypy_cache"):
        (clone / name).mkdir(parents=True)
    shutil.copy(REPOSITORY / "Makefile", clone)
    (clone / "results").symlink_to(disk)
    return clone


def clean(clone: Path, *words: str) -> tuple[int, str]:
    done = subprocess.run(
        ["make", "-s", "clean", *words], cwd=clone, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def left(clone: Path) -> set[str]:
    return {folder.name for folder in (clone / "results").iterdir()}


def test_results_of_published_models_stay(clone: Path) -> None:
    code, said = clean(clone)
    assert code == 0, said
    assert left(clone) == {"reference", "flux_t2i"}
    assert "Kept in results: flux_t2i" in said
    assert (clone / ".snakemake").is_dir()  # it knows which settings made them
    assert not (clone / ".mypy_cache").exists()


def test_they_go_by_name(clone: Path) -> None:
    assert clean(clone)[0] == 0
    code, said = clean(clone, "RESULTS=flux_t2i")
    assert code == 0, said
    assert left(clone) == {"reference"}
    assert not (clone / ".snakemake").exists()


@pytest.mark.parametrize("name", ["reference", "../clone", ".", "smoke reference", "a/b"])
def test_no_other_name_is_taken(name: str, clone: Path) -> None:
    code, said = clean(clone, f"RESULTS={name}")
    assert code != 0
    assert "is not allowed" in said
    assert left(clone) == {"reference", "runs", "smoke", "flux_t2i"}
