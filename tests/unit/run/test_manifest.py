"""A manifest says what made a result."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from bpgo.run import manifest as module
from bpgo.run.manifest import code_digest, manifest
from bpgo.storage.files import repository_root


def test_manifest_can_be_written() -> None:
    found = manifest(config_digest="abc", seed=3)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["config_digest"] == "abc"
    assert found["code_digest"] == code_digest()
    assert found["packages"]["torch"] not in ("", "not installed")
    assert found["hardware"]["cores"] >= 1


def test_a_package_that_is_absent_is_said_to_be() -> None:
    assert module._version("no-such-package") == "not installed"


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for package in ("bpgo", "baselines"):
        shutil.copytree(
            repository_root() / package,
            tmp_path / package,
            ignore=lambda folder, names: [n for n in names if n in ("weights", "__pycache__")],
        )
    monkeypatch.setattr(module, "repository_root", lambda: tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("file", "part_of_a_run"),
    [
        ("bpgo/core/update.py", True),
        ("bpgo/trust/ras.py", True),
        ("baselines/grpo.py", True),
        ("bpgo/analysis/tables/make.py", False),
        ("bpgo/cli.py", False),
        ("bpgo/scenes/pretrain.py", False),
    ],
)
def test_code_digest_follows_what_a_run_computes(
    file: str, part_of_a_run: bool, clone: Path
) -> None:
    digest = code_digest.__wrapped__
    before = digest()
    assert before == code_digest.__wrapped__()
    with (clone / file).open("a") as changed:
        changed.write("\n# changed\n")
    assert (digest() != before) is part_of_a_run


def test_moving_code_changes_the_digest(clone: Path) -> None:
    before = code_digest.__wrapped__()
    (clone / "baselines" / "grpo.py").rename(clone / "baselines" / "other.py")
    assert code_digest.__wrapped__() != before
