"""A policy that is not the run's own is not judged."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tiny_world import tiny_policy, tiny_settings

from bpgo.config.runs import Run
from bpgo.config.settings import Settings
from bpgo.errors import UserError
from bpgo.steps.kept_policies import check_policies, policy_digests
from bpgo.storage.files import write_json

RUN = Run("tiny", "grpo", 1)


@pytest.fixture
def settings(tiny_folder: Path) -> Settings:
    return tiny_settings(tiny_folder)


@pytest.fixture
def trained(settings: Settings, tiny_folder: Path, tmp_path: Path) -> Path:
    """A run's folder with its manifest."""
    folder = tmp_path / "run"
    for name in ("policy", "snapshots/iteration_000002"):
        tiny_policy(tiny_folder).save(folder / name)
    made_by = settings.run_digest(RUN)
    write_json(
        folder / "manifest.json", {"config_digest": made_by, "files": policy_digests(folder)}
    )
    return folder


def refusal(settings: Settings, trained: Path) -> str:
    with pytest.raises(UserError) as caught:
        check_policies(settings, RUN, trained)
    return str(caught.value)


def test_its_own_policies_are_taken(settings: Settings, trained: Path) -> None:
    assert len(policy_digests(trained)) >= 2
    check_policies(settings, RUN, trained)


@pytest.mark.parametrize("place", ["policy", "snapshots/iteration_000002"])
def test_a_changed_bit_is_found(place: str, settings: Settings, trained: Path) -> None:
    file = next((trained / place).rglob("*.safetensors"))
    content = bytearray(file.read_bytes())
    content[-100] ^= 1
    file.write_bytes(content)
    message = refusal(settings, trained)
    assert str(file) in message
    assert "is not what the run has made" in message


def test_a_missing_and_a_further_file_are_found(settings: Settings, trained: Path) -> None:
    file = next((trained / "policy").rglob("*.safetensors"))
    shutil.copy(file, trained / "policy" / "other.safetensors")
    assert "other.safetensors: is not what the run has made" in refusal(settings, trained)
    (trained / "policy" / "other.safetensors").unlink()
    file.unlink()
    assert f"{file}: is missing" in refusal(settings, trained)


def test_a_run_of_another_seed_is_foreign(settings: Settings, trained: Path) -> None:
    with pytest.raises(UserError, match="a run of other settings than tiny/grpo/seed_2"):
        check_policies(settings, Run("tiny", "grpo", 2), trained)


def test_a_cut_manifest_is_named(settings: Settings, trained: Path) -> None:
    path = trained / "manifest.json"
    path.write_text(path.read_text()[:40])
    assert str(path) in refusal(settings, trained)
