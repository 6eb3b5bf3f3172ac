"""Arms of their files, in the tiny world."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_world

from bpgo.config.library import library
from bpgo.config.settings import RolloutSettings
from bpgo.core.arm import Arm
from bpgo.core.trainer import Trainer
from bpgo.registry import load_arm_class
from bpgo.storage.files import repository_root

PROMPTS, GROUP, STEPS = 2, 4, 6


def values_of(name: str, **changes: Any) -> dict[str, Any]:
    """What an arm's file says, over its base; mappings in `changes` are merged into it."""
    files = library(repository_root() / "config", {"arms": {name: changes}}, "changes")
    return files.read("arms", name, "tests", "arms")[1]


def arm_of(name: str, **changes: Any) -> Arm:
    """An arm by its file."""
    values = values_of(name, **changes)
    arm_class = load_arm_class(values["algorithm"])
    found: Arm = arm_class(arm_class.Settings.model_validate(values))
    return found


def sizes(steps: int = STEPS, group: int = GROUP, **changes: Any) -> RolloutSettings:
    return RolloutSettings(prompts_per_iteration=PROMPTS, group_size=group, steps=steps, **changes)


def trainer_of(
    monkeypatch: pytest.MonkeyPatch, folder: Path, output: Path, name: str, **options: Any
) -> Trainer:
    """A trainer of the tiny policy by an arm's file; `changes` are the file's, others as there."""
    arm = values_of(name, **options.pop("changes", {}))
    monkeypatch.setattr(tiny_world, "ARMS", {"grpo": tiny_world.ARM, name: arm})
    rollout = {"group_size": GROUP, "steps": STEPS, **options.pop("rollout", {})}
    return tiny_world.make_trainer(folder, output, arm=name, rollout=rollout, **options)
