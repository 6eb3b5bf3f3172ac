"""A run goes on from a state that is good, and whose logs are whole."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_trainer import assert_same_run, trained

from bpgo.errors import NonFiniteError


@pytest.fixture(scope="module")
def whole(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One uninterrupted run."""
    root = tmp_path_factory.mktemp("whole")
    trained(tiny_folder, root)
    return {"grpo": root}


def test_a_state_whose_next_step_fails_is_not_gone_on_from(
    whole: dict[str, Path], tiny_folder: Path, tmp_path: Path
) -> None:
    """At a rate of 1e30 the weights after an iteration are finite, and of no use."""
    with pytest.raises(NonFiniteError, match="set aside"):
        rate = {"learning_rate": 1e30, "checkpoint_every": 1, "optimizer_steps": 1}
        trained(tiny_folder, tmp_path, training=rate)
    assert not list((tmp_path / "state").glob("iteration_*[0-9]"))
    trained(tiny_folder, tmp_path)  # from the base policy
    assert_same_run(tmp_path, whole["grpo"])


@pytest.mark.parametrize("damage", ["lost", "cut", "gap", "twice"])
@pytest.mark.parametrize("log", ["metrics.jsonl", "rollouts.jsonl"])
def test_a_state_whose_logs_have_holes_is_not_gone_on_from(
    log: str,
    damage: str,
    whole: dict[str, Path],
    tiny_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Of the states of iterations 2 and 4, that of 2 has all its lines, but where all are lost."""
    trained(tiny_folder, tmp_path)
    path = tmp_path / log
    lines = path.read_text().splitlines(keepends=True)
    left = {
        "lost": [],
        "cut": [*lines[:2], lines[2][:-9]],
        "gap": [*lines[:2], lines[3]],
        "twice": [*lines[:2], lines[1], *lines[2:]],
    }
    path.write_text("".join(left[damage]))
    capsys.readouterr()
    trained(tiny_folder, tmp_path)
    said = capsys.readouterr().err
    assert "iteration_000004: passed over: the run's logs are whole to iteration" in said
    assert ("resumed after iteration 2" in said) == (damage != "lost")
    assert_same_run(tmp_path, whole["grpo"])


@pytest.mark.parametrize("log", ["metrics.jsonl", "rollouts.jsonl"])
def test_a_state_whose_logs_were_changed_is_not_gone_on_from(
    log: str,
    whole: dict[str, Path],
    tiny_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Another digit in the third line: the state of iteration 2 is as good as before."""
    trained(tiny_folder, tmp_path)
    lines = (tmp_path / log).read_text().splitlines(keepends=True)
    digit = max(lines[2].rfind(each) for each in "2345678")
    lines[2] = f"{lines[2][:digit]}{9 - int(lines[2][digit])}{lines[2][digit + 1 :]}"
    (tmp_path / log).write_text("".join(lines))
    capsys.readouterr()
    trained(tiny_folder, tmp_path)
    said = capsys.readouterr().err
    assert "iteration_000004: passed over: the run's logs are whole to iteration 2" in said
    assert "resumed after iteration 2" in said
    assert_same_run(tmp_path, whole["grpo"])


@pytest.mark.parametrize("content", [None, "", "null", "{}", '{"4": ["0", "0"]}'])
def test_a_run_without_good_digests_of_its_logs(
    content: str | None, whole: dict[str, Path], tiny_folder: Path, tmp_path: Path
) -> None:
    """Lost ones are no reason to start over; wrong ones cost the states that they are of."""
    trained(tiny_folder, tmp_path)
    path = tmp_path / "state" / "digests.json"
    path.unlink()
    if content is not None:
        path.write_text(content)
    trained(tiny_folder, tmp_path)
    assert_same_run(tmp_path, whole["grpo"])
