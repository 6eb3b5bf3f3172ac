"""Signal-to-noise of gradients: the planted answer, on any scale; what is recorded of a trainer."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from tiny_world import make_trainer, same, weights

from bpgo.errors import RunError
from bpgo.tools.instrument.signal import batch_gradients, signal_to_noise


def planted(ratio: float, batches: int, seed: int = 0, size: int = 20_000) -> torch.Tensor:
    """Gradients whose mean is sqrt(ratio) standard deviations, of scales six decades apart."""
    draws = torch.Generator().manual_seed(seed)
    noise = torch.randn(batches, size, generator=draws)
    sign = torch.randn(size, generator=draws).sign()
    scale = 10 ** (6 * torch.rand(size, generator=draws) - 3)
    return scale * (math.sqrt(ratio) * sign + noise)


@pytest.mark.parametrize("ratio", [0.01, 0.1, 1.0])
def test_the_planted_ratio_is_found(ratio: float) -> None:
    found, error = signal_to_noise(planted(ratio, 60))
    # The smallest of six decades of scales lie below the floor, and count less.
    assert found == pytest.approx(ratio, rel=0.08, abs=4 * error)
    assert error < ratio / 10


def test_without_a_signal_it_is_zero_on_average_and_the_error_says_how_nearly() -> None:
    found = torch.tensor([signal_to_noise(planted(0.0, 8, seed, 500)) for seed in range(200)])
    ratios, errors = found.double().unbind(1)
    assert abs(float(ratios.mean())) < 4 * float(ratios.std()) / math.sqrt(200)
    assert 0.8 < float(errors.mean() / ratios.std()) < 1.8, "the jackknife is not too small"


def test_with_a_signal_the_error_is_that_of_repetitions() -> None:
    found = torch.tensor([signal_to_noise(planted(0.3, 12, seed, 300)) for seed in range(200)])
    ratios, errors = found.double().unbind(1)
    assert 0.7 < float(errors.mean() / ratios.std()) < 1.5


def test_gradients_that_are_all_zero_are_refused() -> None:
    with pytest.raises(RunError, match="no batch has a gradient"):
        signal_to_noise(torch.zeros(4, 10))


def test_recording_moves_nothing(tiny_folder: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tiny_folder, tmp_path)
    before = {name: value.clone() for name, value in weights(trainer).items()}
    found = batch_gradients(trainer, 3)
    assert same(before, weights(trainer))
    assert found.shape == (3, sum(value.numel() for value in before.values()))
    assert bool(found.any(1).all())
    assert not torch.equal(found[0], found[1]), "other prompts, other noise"


def test_a_batch_is_the_mean_of_its_optimizer_steps(tiny_folder: Path, tmp_path: Path) -> None:
    """Where nothing is clipped, their number does not change a whole batch's gradient."""
    sizes = {"iterations": 4, "learning_rate": 1e-3, "snapshot_every": 2, "checkpoint_every": 2}
    both = [
        batch_gradients(
            make_trainer(
                tiny_folder,
                tmp_path / str(steps),
                training={**sizes, "optimizer_steps": steps, "gradient_clip": 1e9},
            ),
            1,
        )
        for steps in (1, 2)
    ]
    torch.testing.assert_close(both[0], both[1], rtol=1e-3, atol=1e-6 * float(both[0].abs().max()))
