"""What a person sees of a workflow: running jobs, the time left, results of finished runs."""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping
from typing import Any

import pytest

from bpgo.run.watch import Job, TimeLeft, Watch

GRPO = {"root": "results", "experiment": "clear", "arm": "grpo", "seed": "1"}


class Clock:
    """Seconds that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def watch_of(
    planned: Mapping[str, int], stream: io.StringIO, share: float | None = None, **results: str
) -> tuple[Watch, Clock]:
    clock = Clock()
    left = TimeLeft(planned, {})
    return Watch(left, lambda rule, _: results.get(rule), lambda *_: share, stream, clock), clock


def record(event: str | None, level: int = logging.INFO, text: str = "", **values: Any) -> Any:
    made = logging.LogRecord("snakemake", level, "", 0, text, None, None)
    made.__dict__.update(values if event is None else {"event": event, **values})
    return made


def started(number: int, rule: str, wildcards: Mapping[str, str] = GRPO) -> Any:
    return record("job_info", jobid=number, rule_name=rule, wildcards=wildcards)


def test_names_of_jobs() -> None:
    assert Job("train", GRPO, 0).name == "train clear/grpo/seed_1"
    assert Job("train", {**GRPO, "root": "results/scenes_t2v"}, 0).name == (
        "train scenes_t2v/clear/grpo/seed_1"
    )
    scored = {"environment": "main", **GRPO, "root": "results/smoke"}
    assert Job("score", scored, 0).name == "score clear/grpo/seed_1/main"
    assert Job("smoke", {}, 0).name == "smoke"


def test_time_left_is_the_work_left_over_the_jobs_side_by_side() -> None:
    left = TimeLeft({"train": 5, "score": 5}, {})
    for _ in range(2):
        left.finish("train", 100)
        left.finish("score", 20)
    # 3 x 100 + 3 x 20 = 360 s of work; until now 240 s of work in 120 s: two side by side.
    assert left.estimate([], {}, 0, 120) == pytest.approx(180)
    # A training that has run for 40 s has 60 s to go; 280 s of work in 140 s.
    running = [Job("train", GRPO, 100)]
    assert left.estimate(running, {}, 0, 140) == pytest.approx((360 - 40) / 2)


def test_nothing_is_said_before_a_training_is_known() -> None:
    left = TimeLeft({"prompts": 2, "train": 3}, {})
    assert left.estimate([], {}, 0, 1) is None
    left.finish("prompts", 1)
    assert left.estimate([], {}, 0, 1) is None
    job = Job("train", GRPO, 0)
    # A quarter in 25 s: 100 s each; 300 + 1 s of work less the 25 that are done.
    assert left.estimate([job], {job: 0.25}, 0, 25) == pytest.approx((300 + 1 - 25) / (26 / 25))


def test_earlier_calls_are_remembered() -> None:
    left = TimeLeft({"train": 4}, {"train": [50.0]})
    assert left.estimate([], {}, 0, 0) == pytest.approx(200)
    left.finish("train", 100)  # what this call takes counts
    assert left.estimate([], {}, 0, 100) == pytest.approx(300)


def test_more_jobs_than_planned_leave_no_negative_time() -> None:
    left = TimeLeft({"train": 1}, {})
    left.finish("train", 10)
    left.finish("train", 10)
    assert left.estimate([Job("train", GRPO, 0)], {}, 0, 500) == 0


def test_a_finished_run_is_one_line() -> None:
    stream = io.StringIO()
    watch, clock = watch_of({"train": 2, "draw": 1}, stream, train="reward 1 to 2")
    watch.emit(started(1, "draw", {"root": "results", "sampler": "ode"}))
    clock.now = 5
    watch.emit(record("job_finished", job_id=1))
    assert stream.getvalue() == ""  # a job without a result
    watch.emit(started(2, "train"))
    clock.now = 71
    watch.emit(record("job_finished", job_id=2))
    assert stream.getvalue() == (
        "train clear/grpo/seed_1: reward 1 to 2, 1:06 [2 of 3 jobs, 1:06 left]\n"
    )
    watch.end()
    watch.end()
    assert stream.getvalue().splitlines()[1:] == ["2 of 3 jobs in 1:11"]


def test_status_names_what_runs() -> None:
    watch, _ = watch_of({"train": 9}, io.StringIO(), share=0.4)
    assert watch.status() == "0 of 9 jobs; now: nothing"
    for number in range(5):
        watch.emit(started(number, "train", {**GRPO, "seed": str(number)}))
    text = watch.status()
    assert "now: train clear/grpo/seed_0 (40%), " in text
    assert text.endswith("seed_2 (40%) and 2 more")
    watch.emit(record("job_error", logging.ERROR, jobid=0))
    assert "seed_0" not in watch.status()


def test_a_terminal_has_one_live_line() -> None:
    stream = Terminal()
    watch, _ = watch_of({"train": 1}, stream, train="done")
    watch.emit(started(1, "train"))
    assert stream.getvalue().endswith("\r\x1b[K0 of 1 jobs; now: train clear/grpo/seed_1")
    assert "\n" not in stream.getvalue()
    watch.emit(record("job_finished", job_id=1))
    assert "\r\x1b[Ktrain clear/grpo/seed_1: done, 0:00\n" in stream.getvalue()


@pytest.mark.parametrize(
    ("made", "shown"),
    [
        (record("job_info"), False),
        (record("shellcmd"), False),
        (record("progress"), False),
        (record("job_error", logging.ERROR), True),
        (record("error", logging.ERROR), True),
        (record(None, text="Select jobs to execute..."), False),
        (record(None, text="Complete log(s): x.log"), True),
        (record(None, logging.WARNING, "a warning"), True),
    ],
)
def test_only_the_account_is_hidden(made: Any, shown: bool) -> None:
    watch, _ = watch_of({}, io.StringIO())
    assert watch.passes(made) is shown


def test_an_account_that_fails_does_not_end_the_work(capsys: pytest.CaptureFixture[str]) -> None:
    watch, _ = watch_of({"train": 1}, io.StringIO())

    def broken(*_: object) -> str:
        raise ZeroDivisionError

    watch.result = broken
    watch.emit(started(1, "train"))
    watch.emit(record("job_finished", job_id=1))
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_it_follows_snakemake_s_handler_alone() -> None:
    logger = logging.Logger("made up")
    watch, _ = watch_of({}, io.StringIO())
    watch.follow(logger)
    assert logger.handlers == []  # another plugin shows what it likes
    stream = io.StringIO()
    own = logging.StreamHandler(stream)
    own.name = "DefaultStreamHandler"
    logger.addHandler(own)
    watch.follow(logger)
    logger.info("hidden", extra={"event": "shellcmd"})
    logger.error("shown")
    watch.end()
    assert stream.getvalue() == "shown\n"
