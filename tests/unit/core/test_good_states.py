"""A run goes on from a state that is good, and whose logs are whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from test_trainer import assert_same_run, trained

from bpgo.errors import NonFiniteError


@pytest.fixture(scope="module")
def whole(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One uninterrupted run."""
    root = tmp_path_factory.mktemp("whole")
    trained(tiny_folder, root)
    return root


@pytest.fixture
def finished(tiny_folder: Path, tmp_path: Path) -> Path:
    """Another, with its states of iterations 2 and 4, to be damaged."""
    trained(tiny_folder, tmp_path)
    return tmp_path


@pytest.fixture
def said_again(
    whole: Path, finished: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[[], str]:
    """Trains the damaged run again, which ends as the whole one: what it said."""

    def again() -> str:
        capsys.readouterr()
        trained(tiny_folder, finished)
        assert_same_run(finished, whole)
        return capsys.readouterr().err

    return again


def test_a_broken_state_is_not_gone_on_from(finished: Path, said_again: Callable[[], str]) -> None:
    (finished / "state" / "iteration_000004" / "weights.safetensors").write_bytes(b"broken")
    said = said_again()
    assert "iteration_000004: passed over" in said
    assert "resumed after iteration 2" in said


def test_a_state_whose_next_step_fails_is_not_gone_on_from(
    whole: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    """At a rate of 1e30 the weights after an iteration are finite, and of no use."""
    with pytest.raises(NonFiniteError, match="set aside"):
        rate = {"learning_rate": 1e30, "checkpoint_every": 1, "optimizer_steps": 1}
        trained(tiny_folder, tmp_path, training=rate)
    assert not list((tmp_path / "state").glob("iteration_*[0-9]"))
    trained(tiny_folder, tmp_path)  # from the base policy
    assert_same_run(tmp_path, whole)


@pytest.mark.parametrize("damage", ["lost", "cut", "gap", "twice"])
@pytest.mark.parametrize("log", ["metrics.jsonl", "rollouts.jsonl"])
def test_a_state_whose_logs_have_holes_is_not_gone_on_from(
    log: str, damage: str, finished: Path, said_again: Callable[[], str]
) -> None:
    """The state of iteration 2 has all its lines, but where all are lost."""
    path = finished / log
    lines = path.read_text().splitlines(keepends=True)
    left = {
        "lost": [],
        "cut": [*lines[:2], lines[2][:-9]],
        "gap": [*lines[:2], lines[3]],
        "twice": [*lines[:2], lines[1], *lines[2:]],
    }
    path.write_text("".join(left[damage]))
    said = said_again()
    assert "iteration_000004: passed over: the run's logs are whole to iteration" in said
    assert ("resumed after iteration 2" in said) == (damage != "lost")


@pytest.mark.parametrize("log", ["metrics.jsonl", "rollouts.jsonl"])
def test_a_state_whose_logs_were_changed_is_not_gone_on_from(
    log: str, finished: Path, said_again: Callable[[], str]
) -> None:
    """Another digit in the third line: the state of iteration 2 is as good as before."""
    lines = (finished / log).read_text().splitlines(keepends=True)
    digit = max(lines[2].rfind(each) for each in "2345678")
    lines[2] = f"{lines[2][:digit]}{9 - int(lines[2][digit])}{lines[2][digit + 1 :]}"
    (finished / log).write_text("".join(lines))
    said = said_again()
    assert "iteration_000004: passed over: the run's logs are whole to iteration 2" in said
    assert "resumed after iteration 2" in said


@pytest.mark.parametrize("content", [None, "", "null", "{}", '{"4": ["0", "0"]}'])
def test_a_run_without_good_digests_of_its_logs(
    content: str | None, finished: Path, said_again: Callable[[], str]
) -> None:
    """Lost ones are no reason to start over; wrong ones cost the states that they are of."""
    path = finished / "state" / "digests.json"
    path.unlink()
    if content is not None:
        path.write_text(content)
    said_again()
