"""What is logged, and that a resumed log ends as if nothing had happened."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from bpgo.run import progress as module
from bpgo.run.progress import MetricsLog, Progress, read_lines


def entry(iteration: int, **more: Any) -> dict[str, Any]:
    return {"iteration": iteration, "reward_mean": iteration / 10, "loss": -1e-3, **more}


def write(folder: Path, finished: int, last: int) -> None:
    log = MetricsLog(folder, finished)
    for iteration in range(finished + 1, last + 1):
        log.write(entry(iteration))
    log.close()


def test_one_line_an_iteration(tmp_path: Path) -> None:
    write(tmp_path, 0, 3)
    assert read_lines(tmp_path / "metrics.jsonl") == [entry(n) for n in (1, 2, 3)]


def test_iterations_that_are_done_again_are_cut_off(tmp_path: Path) -> None:
    write(tmp_path, 0, 5)
    write(tmp_path, 2, 4)
    assert read_lines(tmp_path / "metrics.jsonl") == [entry(n) for n in (1, 2, 3, 4)]
    assert not list(tmp_path.glob("*.part*"))


def test_a_line_that_a_crash_cut_short_is_left_out(tmp_path: Path) -> None:
    write(tmp_path, 0, 3)
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text()[:-10])
    assert read_lines(path) == [entry(1), entry(2)]
    write(tmp_path, 2, 3)
    assert read_lines(path) == [entry(n) for n in (1, 2, 3)]


def test_lines_are_on_disk_before_the_log_is_closed(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, 0)
    log.write(entry(1))
    assert read_lines(tmp_path / "metrics.jsonl") == [entry(1)]
    log.close()


def test_no_file_no_lines(tmp_path: Path) -> None:
    assert read_lines(tmp_path / "metrics.jsonl") == []


def test_tensorboard_has_the_same_numbers(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    write(tmp_path, 0, 2)
    (path,) = (tmp_path / "tensorboard").iterdir()
    events = [event for event in EventFileLoader(str(path)).Load() if event.summary.value]
    assert [event.step for event in events] == [1, 2]
    found = {value.tag: value.tensor.float_val[0] for value in events[1].summary.value}
    assert found == pytest.approx({"reward_mean": 0.2, "loss": -1e-3})


def test_plain_lines_in_a_log(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    with Progress("clear/grpo/seed_1", 100) as progress:
        for iteration in range(1, 101):
            now[0] += 0.5
            progress.step(iteration, f"reward {iteration}")
        progress.say("a note")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "clear/grpo/seed_1: 1/100, 0.50 s each, reward 1, 0:50 left"
    assert lines[-2] == "clear/grpo/seed_1: 100/100, 0.50 s each, reward 100, 0:00 left"
    assert lines[-1] == "a note"
    assert 5 <= len(lines) <= 15  # one every few seconds


def test_time_left_of_a_resumed_run_counts_its_own_iterations(
    capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    with Progress("run", 100, done=90) as progress:
        now[0] = 2.0
        progress.step(91)
    assert capsys.readouterr().err == "run: 91/100, 0:18 left\n"


def test_live_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with Progress("clear/grpo", 3) as progress:
        progress.step(3, "reward 0.5")
        progress.say("a note")
    assert all(
        word in terminal.getvalue() for word in ("clear/grpo", "3/3", "reward 0.5", "a note")
    )


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (61, "1:01"), (3600, "1:00:00")]
)
def test_clock(seconds: float, text: str) -> None:
    assert module.clock_text(seconds) == text


def test_not_a_number_survives(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, 0)
    log.write(entry(1, prior=float("nan"), note="text"))
    log.close()
    (found,) = read_lines(tmp_path / "metrics.jsonl")
    assert json.dumps(found["prior"]) == "NaN"
