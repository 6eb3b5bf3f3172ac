"""A training run: resumed to the bit, paired between arms, stopped before harm."""

from __future__ import annotations

import fcntl
import json
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from one_of_several import partly_flat
from safetensors.torch import load_file
from tiny_world import CAPTIONS, make_trainer, prompt_batch, redness, same, trained, weights
from torch import Tensor

from bpgo.core import trainer as module
from bpgo.core.trainer import Trainer
from bpgo.errors import NonFiniteError, RatioError, RunInterruptedError, UserError
from bpgo.records import Samples
from bpgo.run.progress import read_lines
from bpgo.storage.files import read_json

TIMES = {"seconds", "rollout_seconds", "reward_seconds", "update_seconds"}
KINDS: dict[str, dict[str, Any]] = {
    "grpo": {},
    "bpgo": {"arm": "bpgo"},
    "kl": {"arm": "flow_grpo"},
    "per sample, averaged": {
        "arm": "dance_grpo",
        "training": {"ema_decay": 0.9, "ema_every": 1, "weight_decay": 0.01},
    },
    "adapter": {"model": {"lora": {"rank": 2}}, "training": {"parameters": "lora"}},
    "adapter, kl": {
        "arm": "flow_grpo",
        "model": {"lora": {"rank": 2}},
        "training": {"parameters": "lora", "ema_decay": 0.5, "ema_every": 2},
    },
}


class CrashError(Exception):
    pass


class Counted:
    """`redness` that does something at its n-th call."""

    def __init__(self, at: int, then: Callable[[Tensor], Tensor | None]) -> None:
        self.calls, self.at, self.then = 0, at, then

    def __call__(self, samples: Samples) -> Tensor:
        self.calls += 1
        rewards = redness(samples)
        if self.calls == self.at:
            changed = self.then(rewards)
            return rewards if changed is None else changed
        return rewards


def crash(_rewards: Tensor) -> None:
    raise CrashError


def ask_to_stop(_rewards: Tensor) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def metrics(output: Path) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in entry.items() if name not in TIMES}
        for entry in read_lines(output / "metrics.jsonl")
    ]


def assert_same_run(first: Path, second: Path) -> None:
    """Weights, optimizer, average, arm, metrics and rollouts, to the bit; times aside."""
    names = [path.name for path in sorted((first / "state").iterdir())]
    assert names == [path.name for path in sorted((second / "state").iterdir())]
    for name in ("weights", "optimizer", "ema"):
        file = f"state/{names[-1]}/{name}.safetensors"
        assert same(load_file(first / file), load_file(second / file)), name
    ours, theirs = (
        read_json(path / "state" / names[-1] / "state.json") for path in (first, second)
    )
    assert ours["state"]["arm"] == theirs["state"]["arm"]
    assert metrics(first) == metrics(second)
    assert (first / "rollouts.jsonl").read_text() == (second / "rollouts.jsonl").read_text()
    snapshots = sorted(path.relative_to(first) for path in (first / "snapshots").rglob("*.safe*"))
    assert snapshots
    assert all(same(load_file(first / path), load_file(second / path)) for path in snapshots)


@pytest.fixture(scope="module")
def whole(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One uninterrupted run of each kind."""
    root = tmp_path_factory.mktemp("whole")
    for kind, options in KINDS.items():
        trained(tiny_folder, root / kind, **options)
    return {kind: root / kind for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_run_resumed_after_a_crash(
    kind: str, whole: dict[str, Path], tiny_folder: Path, tmp_path: Path
) -> None:
    """It stops in iteration 4; the state is that of iteration 2, the logs are of 3."""
    with pytest.raises(CrashError):
        trained(tiny_folder, tmp_path, reward=Counted(4, crash), **KINDS[kind])
    assert [entry["iteration"] for entry in metrics(tmp_path)] == [1, 2, 3]
    assert metrics(tmp_path)[:2] == metrics(whole[kind])[:2]
    trained(tiny_folder, tmp_path, **KINDS[kind])
    assert_same_run(tmp_path, whole[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_run_resumed_after_a_signal(
    kind: str, whole: dict[str, Path], tiny_folder: Path, tmp_path: Path
) -> None:
    """SIGTERM in iteration 1: the iteration ends, its state is kept, and so is the old handler."""
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(RunInterruptedError, match="after iteration 1 of 4") as caught:
        trained(tiny_folder, tmp_path, reward=Counted(1, ask_to_stop), **KINDS[kind])
    assert caught.value.exit_code == 75
    assert signal.getsignal(signal.SIGTERM) is before
    assert [path.name for path in (tmp_path / "state").glob("iter*")] == ["iteration_000001"]
    trained(tiny_folder, tmp_path, **KINDS[kind])
    assert [entry["iteration"] for entry in metrics(tmp_path)] == [1, 2, 3, 4]
    assert_same_run(tmp_path, whole[kind])


def test_a_signal_in_the_last_iteration_does_not_interrupt(
    whole: dict[str, Path], tiny_folder: Path, tmp_path: Path
) -> None:
    trained(tiny_folder, tmp_path, reward=Counted(4, ask_to_stop))
    assert_same_run(tmp_path, whole["grpo"])


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGINT, signal.SIGHUP])
def test_other_signals_stop_too(number: signal.Signals, tiny_folder: Path, tmp_path: Path) -> None:
    """A cluster's warning, Ctrl-C and a closed terminal."""
    with pytest.raises(RunInterruptedError, match="the state is saved"):
        trained(tiny_folder, tmp_path, reward=Counted(3, lambda _: os.kill(os.getpid(), number)))
    assert metrics(tmp_path)[-1]["iteration"] == 3
    assert (tmp_path / "state" / "iteration_000003").is_dir()


def test_a_run_under_nohup_does_not_hear_the_terminal_close(
    whole: dict[str, Path], tiny_folder: Path, tmp_path: Path
) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        hung_up = Counted(1, lambda _: os.kill(os.getpid(), signal.SIGHUP))
        trained(tiny_folder, tmp_path, reward=hung_up)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert_same_run(tmp_path, whole["grpo"])


def test_a_finished_run_is_not_trained_again(tiny_folder: Path, tmp_path: Path) -> None:
    first = trained(tiny_folder, tmp_path)
    reward = Counted(0, crash)
    second = trained(tiny_folder, tmp_path, reward=reward)
    assert reward.calls == 0
    assert same(weights(first), weights(second))
    assert second.wall_seconds == first.wall_seconds


def test_wall_seconds_add_up(tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RunInterruptedError):
        trained(tiny_folder, tmp_path, reward=Counted(2, ask_to_stop))
    resumed = trained(tiny_folder, tmp_path)
    entries = read_lines(tmp_path / "metrics.jsonl")
    assert resumed.wall_seconds == pytest.approx(sum(entry["seconds"] for entry in entries))
    for entry in entries:
        parts = sum(entry[name] for name in TIMES - {"seconds"})
        assert entry["seconds"] == pytest.approx(parts)


def test_another_configuration_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    trained(tiny_folder, tmp_path, digest="1111aaaa")
    with pytest.raises(UserError, match=r"1111aaaa.*2222bbbb"):
        trained(tiny_folder, tmp_path, digest="2222bbbb")


def test_a_run_is_trained_by_one_process(tiny_folder: Path, tmp_path: Path) -> None:
    with (tmp_path / ".lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with pytest.raises(UserError, match="being trained by another process"):
            trained(tiny_folder, tmp_path)
    assert not (tmp_path / "metrics.jsonl").exists()
    trained(tiny_folder, tmp_path)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_reward_that_is_not_finite_names_the_prompt(
    bad: float, tiny_folder: Path, tmp_path: Path
) -> None:
    def spoil(rewards: Tensor) -> Tensor:
        rewards[5] = bad
        return rewards

    trainer = make_trainer(tiny_folder, tmp_path, reward=Counted(3, spoil))
    with pytest.raises(NonFiniteError) as caught:
        trainer.run()
    message = str(caught.value)
    assert f"sample 1, is {bad}" in message
    named = [caption for caption in CAPTIONS if repr(caption) in message]
    assert len(named) == 1
    assert [entry["iteration"] for entry in metrics(tmp_path)] == [1, 2]
    assert "set aside" in message
    kept = load_file(tmp_path / "state" / "iteration_000002.failed" / "weights.safetensors")
    assert same(kept, weights(trainer))


def test_an_advantage_that_is_not_finite_stops(tiny_folder: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tiny_folder, tmp_path)
    honest = trainer.arm.advantages

    def spoilt(*arguments: Any) -> Any:
        result = honest(*arguments)
        result.terms[0].advantage[0, 0] = math.nan
        return result

    trainer.arm.advantages = spoilt  # type: ignore[method-assign]
    with pytest.raises(NonFiniteError, match="iteration 1: an advantage"):
        trainer.run()


def test_the_ratio_guard_stops_a_run(tiny_folder: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tiny_folder, tmp_path)
    trainer.updater.arm = make_trainer(tiny_folder, tmp_path, arm_changes={"noise_level": 0.5}).arm
    with pytest.raises(RatioError):
        trainer.run()


def seen_by(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Prompts, noise and first weights of every rollout of a run."""
    found: list[tuple[Any, ...]] = []
    real = module.rollout

    def watch(policy: Any, prompts: Any, noise: Tensor, *arguments: Any) -> Any:
        found.append(
            (prompts.tokens, noise.clone(), {k: v.clone() for k, v in weights(trainer).items()})
        )
        return real(policy, prompts, noise, *arguments)

    monkeypatch.setattr(module, "rollout", watch)
    trainer.run()
    monkeypatch.setattr(module, "rollout", real)
    return found


@pytest.mark.parametrize("arm", ["bpgo", "dance_grpo", "flow_grpo"])
def test_arms_of_a_seed_are_paired(
    arm: str, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = (
        seen_by(make_trainer(tiny_folder, tmp_path / name, arm=name), monkeypatch)
        for name in ("grpo", arm)
    )
    assert len(ours) == len(theirs) == 4
    for (prompts, noise, _), (other_prompts, other_noise, _) in zip(ours, theirs, strict=True):
        assert torch.equal(prompts, other_prompts)
        assert torch.equal(noise[:, 1:], other_noise[:, 1:])
        first = noise.unflatten(0, (2, 4))[:, 0, 0]
        assert torch.equal(first, other_noise.unflatten(0, (2, 4))[:, 0, 0])
        if arm != "flow_grpo":  # which does not share a group's start
            assert torch.equal(noise, other_noise)
    assert same(ours[0][2], theirs[0][2])
    assert not same(ours[1][2], theirs[1][2]) or arm == "bpgo"
    rollouts = [read_lines(tmp_path / name / "rollouts.jsonl") for name in ("grpo", arm)]
    assert [entry["prompt_id"] for entry in rollouts[0]] == [
        entry["prompt_id"] for entry in rollouts[1]
    ]


def test_other_seeds_see_other_prompts_and_noise(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (
        seen_by(make_trainer(tiny_folder, tmp_path / str(seed), seed=seed), monkeypatch)
        for seed in (1, 2)
    )
    assert not torch.equal(first[0][1], second[0][1])
    assert any(not torch.equal(one[0], two[0]) for one, two in zip(first, second, strict=True))
    assert same(first[0][2], second[0][2])


@pytest.mark.parametrize("changes", [{"alpha": 0.0, "varsigma": 0.0}, {"ras": "off", "crt": "off"}])
def test_bpgo_without_its_terms_is_grpo_to_the_bit(
    changes: dict[str, Any], whole: dict[str, Path], tiny_folder: Path, tmp_path: Path
) -> None:
    trained(tiny_folder, tmp_path, arm="bpgo", arm_changes={"trust": {"rule": "bpgo", **changes}})
    for name in ("weights", "optimizer"):
        file = f"state/iteration_000004/{name}.safetensors"
        assert same(load_file(tmp_path / file), load_file(whole["grpo"] / file))
    for ours, theirs in zip(metrics(tmp_path), metrics(whole["grpo"]), strict=True):
        assert {name: ours[name] for name in theirs} == theirs


def test_bpgo_with_its_terms_is_not_grpo(whole: dict[str, Path]) -> None:
    file = "state/iteration_000004/weights.safetensors"
    assert not same(load_file(whole["bpgo"] / file), load_file(whole["grpo"] / file))


def test_each_epoch_shows_every_prompt_once(whole: dict[str, Path]) -> None:
    rows = read_lines(whole["grpo"] / "rollouts.jsonl")
    epoch = [prompt for row in rows[:3] for prompt in row["prompt_id"]]
    assert sorted(epoch) == prompt_batch().ids
    assert len(rows[3]["prompt_id"]) == 2


def test_what_is_logged(whole: dict[str, Path]) -> None:
    rows, entries = (
        read_lines(whole["bpgo"] / f"{name}.jsonl") for name in ("rollouts", "metrics")
    )
    for row, entry in zip(rows, entries, strict=True):
        rewards = torch.tensor(row["reward"])
        assert rewards.shape == torch.tensor(row["advantage"]).shape == (2, 4)
        assert entry["reward_mean"] == pytest.approx(float(rewards.mean()))
        assert entry["group_std"] == pytest.approx(float(rewards.std(dim=1).mean()))
        assert torch.tensor(row["diagnostics"]["red"]).equal(rewards)
        assert set(row["groups"]) == {"prior", "weight"}
        assert len(row["groups"]["weight"]) == 2
        assert row["ambiguity"] == [int(name[1:]) / 6 for name in row["prompt_id"]]
        wanted = {"loss", "gradient_norm", "clip_fraction", "ratio_deviation", "groups_dropped"}
        assert wanted <= set(entry)
        assert entry["ratio_deviation"] == 0.0
        assert all(math.isfinite(value) for value in entry.values())


def test_rewards_are_logged_exactly(tiny_folder: Path, tmp_path: Path) -> None:
    given: list[Tensor] = []

    def watched(samples: Samples) -> Tensor:
        given.append(redness(samples))
        return given[-1]

    trained(tiny_folder, tmp_path, reward=watched)
    for row, rewards in zip(read_lines(tmp_path / "rollouts.jsonl"), given, strict=True):
        assert torch.tensor(row["reward"]).flatten().equal(rewards)


def test_snapshots_leave_out_the_last_iteration(whole: dict[str, Path]) -> None:
    names = [path.name for path in (whole["grpo"] / "snapshots").iterdir()]
    assert names == ["iteration_000002"]


def test_state_holds_no_secrets_of_the_clock(whole: dict[str, Path]) -> None:
    state = json.loads((whole["bpgo"] / "state" / "iteration_000004" / "state.json").read_text())
    assert set(state) == {"iteration", "config_digest", "state"}
    assert set(state["state"]) == {"arm", "wall_seconds", "batch_size"}


@pytest.mark.parametrize(("reward", "tolerance"), [(redness, 1e-30), (partly_flat, 1e-4)])
@pytest.mark.parametrize("parameters", ["full", "lora"])
def test_first_ratios_in_bfloat16(
    parameters: str, reward: Any, tolerance: float, tiny_folder: Path, tmp_path: Path
) -> None:
    """Exactly 1; where a group was dropped, within what `training.ratio_tolerance` states."""
    changes = {
        "model": {"dtype": "bfloat16", "lora": {"rank": 2}},
        "training": {"parameters": parameters, "ratio_tolerance": tolerance},
    }
    trained(tiny_folder, tmp_path, reward=reward, **changes)
    dropped = {entry["groups_dropped"] for entry in read_lines(tmp_path / "metrics.jsonl")}
    assert (1 in dropped) == (reward is partly_flat)
