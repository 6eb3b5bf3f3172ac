"""Snakemake's lock is removed when those who may hold it have ended, and not before."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bpgo.run.workflow_lock import HOLDERS, hold, let_go, remove_stale_locks

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it needs /proc")
HOLD = "import sys; from pathlib import Path; from bpgo.run.workflow_lock import hold; "


@pytest.fixture
def locked(tmp_path: Path) -> Path:
    """A folder as a killed Snakemake leaves it."""
    (tmp_path / "locks").mkdir()
    for name in ("0.input.lock", "0.output.lock"):
        (tmp_path / "locks" / name).write_text("results/report/index.html\n")
    return tmp_path


def hold_and_end(folder: Path) -> None:
    subprocess.run(
        [sys.executable, "-c", f"{HOLD}hold(Path(sys.argv[1]))", str(folder)], check=True
    )


def test_a_dead_run_holds_nothing(locked: Path) -> None:
    hold_and_end(locked)
    assert remove_stale_locks(locked)
    assert not list((locked / "locks").iterdir())
    assert not remove_stale_locks(locked)


def test_a_living_run_keeps_its_lock_beside_a_dead_one(locked: Path) -> None:
    hold(locked)
    hold_and_end(locked)
    assert not remove_stale_locks(locked)
    assert len(list((locked / "locks").iterdir())) == 2
    let_go(locked)
    assert remove_stale_locks(locked)


def test_a_lock_of_nobody_known_stays(locked: Path) -> None:
    assert not remove_stale_locks(locked)
    (locked / HOLDERS).mkdir()
    (locked / HOLDERS / "123").write_text("cut")
    assert not remove_stale_locks(locked)


def test_a_lock_of_another_machine_stays_and_of_an_earlier_start_goes(locked: Path) -> None:
    hold(locked)
    holder = locked / HOLDERS / str(os.getpid())
    started, boot, name = holder.read_text().split(" ", 2)
    holder.write_text(f"{started} {boot} another{name}")
    assert not remove_stale_locks(locked)
    holder.write_text(f"{started} earlier {name}")
    assert remove_stale_locks(locked)
