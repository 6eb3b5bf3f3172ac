"""Shipped settings of an arm, and runs of the tiny world with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_world
import yaml

from bpgo.core.arm import Arm
from bpgo.core.trainer import Trainer
from bpgo.registry import load_arm_class
from bpgo.storage.files import repository_root

Make = Callable[..., Trainer]


def shipped(name: str) -> dict[str, Any]:
    """The values of `config/arms/{name}.yaml`, those of its base included."""
    file = repository_root() / "config" / "arms" / f"{name}.yaml"
    values: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    if "base" in values:
        base = shipped(values.pop("base"))
        advantage = {**base["advantage"], **values.pop("advantage", {})}
        values = {**base, **values, "advantage": advantage}
    return values


@pytest.fixture(scope="session")
def arm_of() -> Callable[..., Arm]:
    """`arm_of(name, **changes)`: a shipped arm."""

    def make(name: str, **changes: Any) -> Arm:
        arm_class = load_arm_class(shipped(name)["algorithm"])
        return arm_class(arm_class.Settings.model_validate({**shipped(name), **changes}))

    return make


@pytest.fixture
def make(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """`make(name, output, **options)`: `make_trainer` with a shipped arm."""

    def trainer(name: str, output: Path, **options: Any) -> Trainer:
        changes = options.pop("arm_changes", {})
        arms = {"grpo": tiny_world.ARM, name: {**shipped(name), **changes}}
        monkeypatch.setattr(tiny_world, "ARMS", arms)
        return tiny_world.make_trainer(tiny_folder, output, arm=name, **options)

    return trainer


@pytest.fixture
def assert_resumes(make: Make, tmp_path: Path) -> Callable[..., None]:
    """A run that crashes in iteration 4 and goes on from the state of 2 is the whole run."""

    def check(name: str, **options: Any) -> None:
        whole = make(name, tmp_path / "whole", **options)
        whole.run()
        calls = []

        def broken(*given: Any) -> Any:
            calls.append(given)
            if len(calls) == 4:
                raise ConnectionError
            return tiny_world.redness(*given)

        with pytest.raises(ConnectionError):
            make(name, tmp_path / "parts", reward=broken, **options).run()
        second = make(name, tmp_path / "parts", **options)
        second.run()
        assert tiny_world.same(tiny_world.weights(second), tiny_world.weights(whole))
        assert second.averages.keys() == whole.averages.keys()
        for key, average in whole.averages.items():
            assert tiny_world.same(second.averages[key].state_dict(), average.state_dict())

    return check
