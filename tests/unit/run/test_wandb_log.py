"""Weights & Biases, where a person asks for it; never needed."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bpgo.errors import UserError
from bpgo.run.folder import RunLogs
from bpgo.run.shown import ShownSamples
from bpgo.run.wandb_log import VARIABLE, wandb_log

ENTRY = {"iteration": 3, "reward_mean": 0.5}


class Fake(ModuleType):
    """What of the package is called."""

    def __init__(self, fails: str = "") -> None:
        super().__init__("wandb")
        self.fails = fails
        self.began: list[dict[str, Any]] = []
        self.logged: list[tuple[dict[str, Any], int]] = []
        self.finished = 0

    def init(self, **options: Any) -> Fake:
        self._may_fail("init")
        self.began.append(options)
        return self

    def log(self, values: dict[str, Any], step: int) -> None:
        self._may_fail("log")
        self.logged.append((values, step))

    def finish(self) -> None:
        self.finished += 1

    def Image(self, picture: Any) -> tuple[int, int]:  # noqa: N802 (the package's name)
        size: tuple[int, int] = picture.size
        return size

    def _may_fail(self, what: str) -> None:
        if self.fails == what:
            raise ConnectionError("no route\nto host")


@pytest.fixture
def said() -> list[str]:
    return []


def begin(monkeypatch: pytest.MonkeyPatch, fake: Fake | None) -> Fake | None:
    monkeypatch.setenv(VARIABLE, "trust")
    monkeypatch.setitem(sys.modules, "wandb", fake)  # None: not installed
    return fake


def test_it_is_off_unless_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: list[str]
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert wandb_log("run", tmp_path, said.append) is None
    monkeypatch.setenv(VARIABLE, " ")
    assert wandb_log("run", tmp_path, said.append) is None


def test_without_the_package_one_message(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: list[str]
) -> None:
    begin(monkeypatch, None)
    with pytest.raises(UserError, match=r"BPGO_WANDB: 'trust' asks for .* not installed: install"):
        wandb_log("run", tmp_path, said.append)


def test_a_run_has_numbers_and_pictures_and_is_resumed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import torch

    fake = begin(monkeypatch, Fake())
    assert fake is not None
    shown = ShownSamples(["x"], group=1)
    shown.see(torch.rand(1, 3, 24, 24))
    for done in (0, 1):
        with RunLogs(tmp_path, "clear/grpo/seed_1", 9, done, []) as logs:
            logs.write({"iteration": done + 1, "reward_mean": 0.1}, shown if done else None)
    assert [values for values, _ in fake.logged] == [
        {"reward_mean": 0.1},
        {"reward_mean": 0.1, "samples": (104, 122)},
    ]
    assert [step for _, step in fake.logged] == [1, 2]
    assert fake.finished == 2
    first, second = fake.began
    assert first == second
    assert (first["project"], first["name"]) == ("trust", "clear/grpo/seed_1")
    assert first["resume"] == "allow"


@pytest.mark.parametrize("what", ["init", "log"])
def test_what_fails_there_ends_no_run(
    what: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: list[str]
) -> None:
    begin(monkeypatch, Fake(fails=what))
    log = wandb_log("run", tmp_path, said.append)
    assert log is not None
    log.write(ENTRY)
    log.write(ENTRY)
    log.close()
    assert said == ["Weights & Biases: no route to host; the run goes on without"]
