"""An adapter's first weights follow from the run's seed, and from nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_world import ARMS, CALIBRATION, model_settings, same, tiny_settings, weights
from torch import Tensor
from wan_cases import T2V, TWO_T2V, WanCase, WanFolders

from bpgo.config.runs import Run
from bpgo.config.settings import Settings
from bpgo.models.flux import FluxPolicy
from bpgo.models.wan import WanPolicy
from bpgo.steps import loading
from bpgo.steps.prompts import write_prompts
from bpgo.steps.sample import sample_base
from bpgo.steps.train import build_trainer

LORA = {"parameters": "lora", "iterations": 2, "snapshot_every": 2}


def wan(case: WanCase, folder: Path, seed: int) -> dict[str, Tensor]:
    """The adapters of a fresh policy."""
    settings = case.policy(folder).settings
    return WanPolicy(settings, "lora", seed=seed).trainable()


def first(adapter: dict[str, Tensor]) -> dict[str, Tensor]:
    """The matrices that are drawn; the others begin at zero."""
    assert all(not value.any() for name, value in adapter.items() if "lora_B" in name)
    return {name: value.detach() for name, value in adapter.items() if "lora_A" in name}


def test_the_seed_decides(wan_folders: WanFolders) -> None:
    one, again, other = (first(wan(T2V, wan_folders(T2V), seed)) for seed in (1, 1, 2))
    assert same(one, again)
    assert one.keys() == other.keys()
    assert not any(torch.equal(one[name], other[name]) for name in one)
    drawn = torch.cat([value.flatten() for value in one.values()])
    assert drawn.std() == pytest.approx(1 / 2, rel=0.1)  # 1 / rank


def test_two_experts_start_apart(wan_folders: WanFolders) -> None:
    found = first(wan(TWO_T2V, wan_folders(TWO_T2V), 1))
    high = {name: value for name, value in found.items() if name.startswith("transformer.")}
    assert 0 < len(high) == len(found) / 2
    for name, value in high.items():
        low = found[name.replace("transformer.", "transformer_2.", 1)]
        assert low.shape == value.shape
        assert not torch.equal(low, value)
    alone = first(wan(T2V, wan_folders(T2V), 1))  # the purpose and the part name a draw
    assert same(alone, {name.removeprefix("transformer."): value for name, value in high.items()})


def test_nothing_else_is_drawn_from(tiny_folder: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    FluxPolicy(model_settings(tiny_folder), "lora", seed=3)
    assert torch.equal(torch.rand(3), expected)


@pytest.fixture
def settings(tiny_folder: Path) -> Settings:
    experiment = tiny_settings(tiny_folder).experiments["tiny"].model_dump()
    return tiny_settings(
        tiny_folder,
        model={"lora": {"rank": 2}},
        experiments={"tiny": experiment | {"arms": list(ARMS)}},
        training=LORA,
    )


def test_arms_of_a_seed_start_alike(settings: Settings, tmp_path: Path) -> None:
    prompts, calibration = tmp_path / "prompts" / "train.jsonl", tmp_path / "calibration.json"
    write_prompts(settings, "train", prompts)
    CALIBRATION.save(calibration)

    def start(arm: str, seed: int) -> dict[str, Tensor]:
        output = tmp_path / f"{arm}_{seed}"
        return weights(
            build_trainer(settings, Run("tiny", arm, seed), prompts, calibration, output, "cpu")
        )

    reference = start("grpo", 1)
    assert all(same(start(arm, 1), reference) for arm in ARMS)
    assert not same(start("grpo", 2), reference)


def test_trained_adapters_and_the_base_sample_alike_with_any_seed(
    settings: Settings, tmp_path: Path
) -> None:
    trained = loading.load_policy(settings, "cpu", 1)
    with torch.no_grad():
        for value in trained.trainable().values():
            value += 0.1
    trained.save(tmp_path / "policy")
    prompts = trained.encode_prompts(["a small red circle"])
    latents, sigma = torch.ones(1, *trained.latent_shape), torch.full((1,), 0.5)
    velocities = []
    with torch.no_grad():
        for seed in (1, 2):
            policy = loading.load_policy(settings, "cpu", seed)
            base = policy.velocity(latents, sigma, prompts, 1.0)
            policy.load_trained(tmp_path / "policy")
            assert same(policy.trainable(), trained.trainable())
            velocities.append((base, policy.velocity(latents, sigma, prompts, 1.0)))
    assert all(torch.equal(one, two) for one, two in zip(*velocities, strict=True))
    assert not torch.equal(*velocities[0])


def test_sampling_asks_for_the_runs_seed(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds: list[int] = []
    load = loading.load_policy

    def noted(settings: Settings, device: str, seed: int) -> object:
        seeds.append(seed)
        return load(settings, device, seed)

    monkeypatch.setattr("bpgo.steps.loading.load_policy", noted)
    prompts = tmp_path / "prompts" / "evaluation.jsonl"
    write_prompts(settings, "evaluation", prompts)
    sample_base(settings, 7, prompts, tmp_path / "samples")
    assert seeds == [7]
