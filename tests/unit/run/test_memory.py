"""How many samples fit, and what is said when they do not: on a GPU of made-up memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from calibrated import draw_calibrate_judge
from tiny_world import make_trainer, redness, same, tiny_settings, trained, weights
from torch import Tensor

from bpgo.errors import OutOfMemoryError
from bpgo.models.flux import FluxPolicy
from bpgo.records import Samples
from bpgo.run import memory
from bpgo.run.memory import fitting_batch_size, largest_batch
from bpgo.steps.prompts import write_prompts
from bpgo.steps.sample import sample_base
from bpgo.storage.files import read_json


class Gpu:
    """A trial's stand-in: the first sample takes `base + each` bytes, each further one `each`."""

    def __init__(self, base: int, each: int, total: int) -> None:
        self.base, self.each, self.total, self.tried = base, each, total, list[int]()

    def __call__(self, samples: int) -> int:
        self.tried.append(samples)
        peak = self.base + self.each * samples
        if peak > self.total:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return peak


@pytest.mark.parametrize("fit", [1, 2, 3, 7, 20])
def test_largest_batch_is_found_from_two_trials(fit: int) -> None:
    gpu = Gpu(base=1000, each=100, total=1000 + 100 * fit + 50)
    assert largest_batch(gpu, 96, gpu.total) == fit
    assert gpu.tried == [1, 2]
    assert gpu(fit)


def test_no_more_than_there_are() -> None:
    assert largest_batch(Gpu(10, 1, 10**9), 12, 10**9) == 12
    assert largest_batch(Gpu(10, 1, 10**9), 1, 10**9) == 1


def test_not_even_one() -> None:
    assert largest_batch(Gpu(1000, 100, 900), 96, 900) == 0


def test_where_memory_cannot_be_read_trials_double() -> None:
    gpu = Gpu(0, 10, 75)
    assert largest_batch(gpu, 96, 0) == 4
    assert gpu.tried == [1, 2, 4, 8]


def test_trials_of_several_processes_are_made_in_step() -> None:
    """Another process needs 150 bytes more; one that fails cannot go on without the others."""
    gpu = Gpu(1000, 100, 2000)
    assert largest_batch(gpu, 96, 2000, lambda peak: peak + 150) == 8
    with pytest.raises(torch.OutOfMemoryError):
        largest_batch(Gpu(1000, 100, 900), 96, 900, float)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    """A GPU on which 5 samples fit, as `fitting_batch_size` sees it."""
    gpu = Gpu(base=1000, each=100, total=1540)
    gpu.policy = type("Policy", (), {"device": torch.device("cuda")})  # type: ignore[attr-defined]
    gpu.gradient = True  # type: ignore[attr-defined]
    monkeypatch.setattr(memory, "capacity", lambda device, reserve: gpu.total - reserve)
    monkeypatch.setattr(memory, "_name", lambda device: "a GPU")
    return gpu


@pytest.mark.parametrize(
    ("rows", "reserve", "size"), [(4, 0, 4), (5, 0, 5), (12, 0, 4), (96, 0, 5), (12, 240, 3)]
)
def test_chunks_are_about_equal(rows: int, reserve: int, size: int, cuda: Any) -> None:
    assert fitting_batch_size(cuda, rows, reserve) == size


def test_one_sample_that_does_not_fit(cuda: Any) -> None:
    with pytest.raises(OutOfMemoryError, match="not even one sample fits into the memory of a GPU"):
        fitting_batch_size(cuda, 12, reserve=1000)


def test_auto_without_a_gpu_is_a_fixed_size(tiny_folder: Path, tmp_path: Path) -> None:
    trainer = trained(tiny_folder, tmp_path / "auto", rollout={"batch_size": "auto"})
    assert trainer.updater.batch_size == 96
    plain = trained(tiny_folder, tmp_path / "plain", rollout={"batch_size": 96})
    assert same(weights(trainer), weights(plain))


def test_a_resumed_run_keeps_what_was_measured(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    auto = {"batch_size": "auto"}
    monkeypatch.setattr(memory, "fitting_batch_size", lambda *_: 3)
    half = {"iterations": 2, "snapshot_every": 2}
    trained(tiny_folder, tmp_path, rollout=auto, training=half)
    assert "rollout.batch_size auto: 3 of 8 samples at a time" in capsys.readouterr().err
    state = read_json(tmp_path / "state" / "iteration_000002" / "state.json")["state"]
    assert state["batch_size"] == 3
    monkeypatch.setattr(memory, "fitting_batch_size", lambda *_: 5)
    assert trained(tiny_folder, tmp_path, rollout=auto).updater.batch_size == 3


def test_the_trial_changes_nothing(tiny_folder: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tiny_folder, tmp_path)
    before = {name: value.clone() for name, value in weights(trainer).items()}
    assert trainer._trial(gradient=True)(3) == 0
    assert same(weights(trainer), before)
    assert all(p.grad is None for p in trainer.parameters.values())


def limit_to(samples: int, monkeypatch: pytest.MonkeyPatch, policy: Any, when: str) -> None:
    """Forward passes of more samples fail: always, or only where gradients are needed."""
    real = policy.velocity

    def velocity(latents: Tensor, *arguments: Any) -> Tensor:
        grows = torch.is_grad_enabled() or when == "rollout"
        if len(latents) > samples and grows:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return real(latents, *arguments)

    monkeypatch.setattr(policy, "velocity", velocity)


@pytest.mark.parametrize("when", ["rollout", "update"])
def test_a_full_memory_says_what_would_fit(
    when: str, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It happens in iteration 3; the state of iteration 2 goes on with the size that fits."""
    trainer = make_trainer(tiny_folder, tmp_path)
    real = trainer.iterate

    def iterate(iteration: int, *arguments: Any) -> Any:
        if iteration == 3:
            limit_to(5, monkeypatch, trainer.policy, when)
        return real(iteration, *arguments)

    monkeypatch.setattr(trainer, "iterate", iterate)
    with pytest.raises(OutOfMemoryError) as caught:
        trainer.run()
    said = str(caught.value)
    assert f"{when} of iteration 3" in said
    assert "Set rollout.batch_size to 4: so many would fit." in said
    assert "Tried to allocate 2.00 GiB" in said
    assert ("model.gradient_checkpointing" in said) == (when == "update")
    assert caught.value.exit_code == 1
    assert max((tmp_path / "state").iterdir()).name == "iteration_000002"
    monkeypatch.undo()
    smaller = make_trainer(tiny_folder, tmp_path, rollout={"batch_size": 4})
    limit_to(5, monkeypatch, smaller.policy, when)
    smaller.run()
    assert max((tmp_path / "state").iterdir()).name == "iteration_000004"


def test_a_reward_that_fills_the_memory(tiny_folder: Path, tmp_path: Path) -> None:
    def reward(samples: Samples) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(OutOfMemoryError, match=r"iteration 1: a reward .*overrides\.rewards"):
        trained(tiny_folder, tmp_path, reward=reward)


def test_other_errors_pass(tiny_folder: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tiny_folder, tmp_path, reward=redness)
    trainer.policy.velocity = lambda *_: 1 / 0  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError):
        trainer.run()
    trainer = make_trainer(tiny_folder, tmp_path)
    with pytest.raises(RuntimeError, match="a bug"), trainer._memory("rollout", gradient=False):
        raise RuntimeError("a bug")
    with (
        pytest.raises(OutOfMemoryError, match="allocate memory"),
        trainer._memory("rollout", gradient=False),
    ):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")


def test_calibration_and_sampling_say_their_own_keys(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tiny_settings(tiny_folder, rollout={"batch_size": "auto"})
    for split in ("train", "evaluation"):
        write_prompts(settings, split, tmp_path / f"{split}.jsonl")
    draw_calibrate_judge(settings, "tiny", tmp_path / "train.jsonl", tmp_path / "calibration")
    real = FluxPolicy.velocity

    def velocity(self: Any, latents: Tensor, *arguments: Any) -> Tensor:
        if len(latents) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, latents, *arguments)

    monkeypatch.setattr(FluxPolicy, "velocity", velocity)
    with pytest.raises(OutOfMemoryError, match=r"calibration.* Set rollout\.batch_size to 1"):
        draw_calibrate_judge(settings, "tiny", tmp_path / "train.jsonl", tmp_path / "again")
    with pytest.raises(OutOfMemoryError, match=r"sampling.* Set evaluation\.batch_size to 1"):
        sample_base(settings, 1, tmp_path / "evaluation.jsonl", tmp_path / "s")
