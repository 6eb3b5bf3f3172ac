"""A training state on disk is whole or absent."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from bpgo.errors import UserError
from bpgo.run import checkpoint as module
from bpgo.run.checkpoint import (
    Checkpoint,
    load_newest,
    optimizer_tensors,
    restore_optimizer,
    save,
)
from bpgo.run.optimizer import AdamW
from bpgo.seeding import generator

FILES = {
    "weights.safetensors",
    "optimizer.safetensors",
    "ema.safetensors",
    "state.json",
    "digests.json",
}


def state(iteration: int, **changes: Any) -> Checkpoint:
    draws = generator(iteration, "checkpoint")
    tensors = {
        "a.weight": torch.randn(3, 4, generator=draws),
        "b": torch.randn((), generator=draws),
    }
    values: dict[str, Any] = {
        "weights": tensors,
        "optimizer": {"0.step": torch.tensor(4.0), "0.exp_avg": torch.randn(2, generator=draws)},
        "ema": {},
        "state": {"arm": {"prior": {"mean": 0.1 + iteration}}, "wall_seconds": 1.5},
    }
    return Checkpoint(iteration, **(values | changes))


def assert_equal(first: Checkpoint | None, second: Checkpoint) -> None:
    assert first is not None
    assert (first.iteration, first.state) == (second.iteration, second.state)
    for name in ("weights", "optimizer", "ema"):
        ours, theirs = getattr(first, name), getattr(second, name)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_round_trip(tmp_path: Path) -> None:
    path = save(tmp_path / "state", state(20), "digest")
    assert path.name == "iteration_000020"
    assert {file.name for file in path.iterdir()} == FILES
    found, notes = load_newest(tmp_path / "state", "digest")
    assert_equal(found, state(20))
    assert notes == []


def test_nothing_there(tmp_path: Path) -> None:
    assert load_newest(tmp_path / "state", "digest") == (None, [])
    (tmp_path / "state").mkdir()
    assert load_newest(tmp_path / "state", "digest") == (None, [])


def test_two_are_kept_and_the_newest_wins(tmp_path: Path) -> None:
    for iteration in (10, 20, 30, 100):
        save(tmp_path, state(iteration), "digest")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "iteration_000030",
        "iteration_000100",
    ]
    assert_equal(load_newest(tmp_path, "digest")[0], state(100))


def test_an_error_while_saving_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, state(10), "digest")

    def full(*_arguments: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(module, "write_json", full)
    with pytest.raises(OSError, match="no space"):
        save(tmp_path, state(20), "digest")
    assert [path.name for path in tmp_path.iterdir()] == ["iteration_000010"]
    assert_equal(load_newest(tmp_path, "digest")[0], state(10))


def test_an_unfinished_folder_is_not_a_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, state(10), "digest")
    shutil.copytree(tmp_path / "iteration_000010", tmp_path / ".iteration_000020.1234.part")
    found, notes = load_newest(tmp_path, "digest")
    assert_equal(found, state(10))
    assert notes == []


@pytest.mark.parametrize("file", sorted(FILES))
@pytest.mark.parametrize("damage", ["missing", "cut short", "empty", "one bit"])
def test_a_broken_checkpoint_is_named_and_passed_over(
    file: str, damage: str, tmp_path: Path
) -> None:
    save(tmp_path, state(10), "digest")
    path = save(tmp_path, state(20), "digest") / file
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "cut short":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    found, notes = load_newest(tmp_path, "digest")
    assert_equal(found, state(10))
    assert len(notes) == 1
    assert "iteration_000020: passed over" in notes[0]


@pytest.mark.parametrize("content", ["[]", "3", "{}", '{"weights.safetensors": "0"}', "null"])
def test_digests_of_another_form(content: str, tmp_path: Path) -> None:
    save(tmp_path, state(10), "digest")
    (save(tmp_path, state(20), "digest") / "digests.json").write_text(content)
    found, notes = load_newest(tmp_path, "digest")
    assert_equal(found, state(10))
    assert len(notes) == 1


def test_all_broken(tmp_path: Path) -> None:
    for iteration in (10, 20):
        (save(tmp_path, state(iteration), "digest") / "state.json").write_text("{")
    found, notes = load_newest(tmp_path, "digest")
    assert found is None
    assert len(notes) == 2


def test_another_configuration_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "state"
    save(folder, state(10), "1111aaaa")
    with pytest.raises(UserError) as caught:
        load_newest(folder, "2222bbbb")
    message = str(caught.value)
    assert all(word in message for word in ("1111aaaa", "2222bbbb", str(folder.parent)))
    assert (folder / "iteration_000010").is_dir()


def test_saving_again_replaces(tmp_path: Path) -> None:
    save(tmp_path, state(10), "digest")
    changed = state(10, state={"arm": {}, "wall_seconds": 3.0})
    save(tmp_path, changed, "digest")
    assert_equal(load_newest(tmp_path, "digest")[0], changed)


def test_only_json_and_safetensors(tmp_path: Path) -> None:
    path = save(tmp_path, state(10), "digest")
    assert {file.suffix for file in path.iterdir()} == {".json", ".safetensors"}
    assert json.loads((path / "state.json").read_text())["config_digest"] == "digest"


def network() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Linear(5, 1))
    return model, AdamW(model.parameters(), lr=1e-2, weight_decay=0.1, fused=True)


def steps(model: torch.nn.Module, optimizer: torch.optim.Optimizer, numbers: range) -> None:
    for number in numbers:
        optimizer.zero_grad()
        model(torch.randn(8, 4, generator=generator(number))).square().mean().backward()
        optimizer.step()


def test_optimizer_round_trip_is_exact(tmp_path: Path) -> None:
    whole, optimizer = network()
    steps(whole, optimizer, range(3))
    found = Checkpoint(3, dict(whole.state_dict()), optimizer_tensors(optimizer), {}, {})
    save(tmp_path, found, "digest")
    steps(whole, optimizer, range(3, 6))

    resumed, other = network()
    loaded, _ = load_newest(tmp_path, "digest")
    assert loaded is not None
    resumed.load_state_dict(loaded.weights)
    restore_optimizer(other, loaded.optimizer)
    steps(resumed, other, range(3, 6))
    for ours, theirs in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    state_of = optimizer_tensors(other)
    assert all(
        torch.equal(state_of[name], value) for name, value in optimizer_tensors(optimizer).items()
    )


def test_optimizer_without_state() -> None:
    _, optimizer = network()
    assert optimizer_tensors(optimizer) == {}
    restore_optimizer(optimizer, {})
    assert optimizer_tensors(optimizer) == {}
