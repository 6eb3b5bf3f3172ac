"""The code of a run: a new arm leaves that of others as it is, a shared file does not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bpgo import registry
from bpgo.config.resolve import default_configfile, load
from bpgo.config.runs import Run
from bpgo.errors import UserError
from bpgo.run import code as module
from bpgo.storage.files import repository_root

SETTINGS = load(default_configfile(), "smoke")


def code(arm: str) -> dict[str, str]:
    return module.code_of(SETTINGS, Run("ambiguous", arm, 1))


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for package in ("bpgo", "baselines"):
        ignored = shutil.ignore_patterns("weights", "__pycache__")
        shutil.copytree(repository_root() / package, tmp_path / package, ignore=ignored)
    monkeypatch.setattr(module, "repository_root", lambda: tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("bpgo/core/update.py", {"grpo", "bpgo"}),
        ("baselines/grpo.py", {"grpo", "bpgo"}),
        ("bpgo/trust/ras.py", {"bpgo"}),
        ("bpgo/steps/calibrate.py", {"grpo", "bpgo"}),
        ("bpgo/scenes/image/reward.py", {"grpo", "bpgo"}),
        ("baselines/ddpo.py", set()),
        ("bpgo/rewards/pickscore.py", set()),
        ("bpgo/analysis/collect.py", set()),
        ("bpgo/run/machine.py", set()),
    ],
)
def test_a_file_counts_for_the_runs_that_use_it(file: str, changes: set[str], clone: Path) -> None:
    before = {arm: code(arm) for arm in ("grpo", "bpgo")}
    with (clone / file).open("a") as changed:
        changed.write("\n# changed\n")
    module._digest.cache_clear()
    assert {arm for arm, found in before.items() if code(arm) != found} == changes


def test_a_new_arm_in_the_registry_changes_no_other_run(
    clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = code("grpo")
    shutil.copy(clone / "baselines" / "grpo.py", clone / "baselines" / "rank_grpo.py")
    file = clone / "bpgo" / "registry.py"
    line = '    "rank_grpo": "baselines.rank_grpo",\n'
    file.write_text(file.read_text().replace("ARMS = {\n", "ARMS = {\n" + line))
    module._digest.cache_clear()
    assert code("grpo") == before
    monkeypatch.setitem(registry.ARMS, "grpo", "baselines.rank_grpo")
    assert code("grpo") != before, "the name stands for another file"


def test_a_run_of_code_that_was_edited_since_is_refused(clone: Path, tmp_path: Path) -> None:
    saved = tmp_path / "results" / "code.json"
    runs = {arm: Run("ambiguous", arm, 1) for arm in ("grpo", "bpgo")}
    module.save_code([code(arm) for arm in runs], saved)
    for run in runs.values():
        module.check_code(SETTINGS, run, saved)
    with (clone / "bpgo" / "trust" / "ras.py").open("a") as changed:
        changed.write("# changed\n")
    module._digest.cache_clear()
    module.check_code(SETTINGS, runs["grpo"], saved)
    with pytest.raises(UserError, match=r"^bpgo/trust/ras\.py was edited since this call"):
        module.check_code(SETTINGS, runs["bpgo"], saved)
    module.save_code([], saved)  # where code may be mixed
    module.check_code(SETTINGS, runs["bpgo"], saved)
    module.check_code(SETTINGS, runs["bpgo"], tmp_path / "none.json")
