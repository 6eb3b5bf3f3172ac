"""Wan2.2's two experts: who works where, adapters of both, weights that wait on the host."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pipeline_cases import disturb
from torch import Tensor
from wan_cases import (
    TWO_I2V,
    TWO_T2V,
    WanCase,
    WanFolders,
    assert_same_clips,
    clips_of,
    clips_of_pipeline,
    wan_noise,
)
from wan_world import make_wan_trainer

from bpgo.errors import UserError
from bpgo.models.wan import WanPolicy
from bpgo.models.wan_experts import Experts, for_high_noise
from bpgo.run.progress import read_lines

BOUNDARY = 0.8  # of the tiny pipelines
MIXED = torch.tensor([0.9, 0.3, BOUNDARY])


@pytest.fixture
def policy(wan_folders: WanFolders) -> WanPolicy:
    found = TWO_T2V.policy(wan_folders(TWO_T2V))
    disturb(found)
    return found


def counted(policy: WanPolicy) -> dict[str, list[int]]:
    """How many rows each expert gets, call by call."""
    calls: dict[str, list[int]] = {"high": [], "low": []}
    assert policy.experts is not None
    for name, expert in zip(calls, policy.experts.both, strict=True):
        expert.register_forward_pre_hook(
            lambda _module, _args, kwargs, name=name: calls[name].append(
                len(kwargs["hidden_states"])
            ),
            with_kwargs=True,
        )
    return calls


def test_the_noise_level_chooses(policy: WanPolicy) -> None:
    prompts, latents, calls = (
        policy.encode_prompts(["a", "b", "c"]),
        wan_noise(policy),
        counted(policy),
    )
    assert policy.boundary == BOUNDARY
    assert for_high_noise(MIXED, BOUNDARY).tolist() == [True, False, True]
    with torch.no_grad():
        together = policy.velocity(latents, MIXED, prompts, 1.0)
        assert calls == {"high": [2], "low": [1]}
        for row in range(3):
            one = slice(row, row + 1)
            alone = policy.velocity(latents[one], MIXED[one], prompts.select(one), 1.0)
            torch.testing.assert_close(alone, together[one], rtol=1e-4, atol=1e-5)
        assert calls == {"high": [2, 1, 1], "low": [1, 1]}
        other = policy.velocity(latents, torch.full((3,), 0.3), prompts, 1.0)
    assert not torch.equal(other[0], together[0])


def test_each_has_its_guidance(policy: WanPolicy) -> None:
    prompts, latents, calls = (
        policy.encode_prompts(["a", "b", "c"]),
        wan_noise(policy),
        counted(policy),
    )
    with torch.no_grad():
        pair = policy.velocity(latents, MIXED, prompts, [4.0, 1.0])
        assert calls == {"high": [4], "low": [1]}
        for row, scale in enumerate((4.0, 1.0, 4.0)):
            alone = policy.velocity(latents, MIXED, prompts, scale)
            torch.testing.assert_close(pair[row], alone[row], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", [TWO_T2V, TWO_I2V], ids=["t2v", "i2v"])
def test_both_adapters_serve_the_pipeline(
    case: WanCase, wan_folders: WanFolders, first_frames: list[Path], tmp_path: Path
) -> None:
    policy = case.policy(wan_folders(case))
    disturb(policy)
    policy.save(tmp_path)
    ours = clips_of(case, policy, first_frames)
    pipeline = case.pipeline(wan_folders(case), policy)
    pipeline.load_lora_weights(tmp_path)
    pipeline.load_lora_weights(tmp_path / "transformer_2", load_into_transformer_2=True)
    theirs = clips_of_pipeline(case, pipeline, wan_noise(policy), first_frames)
    assert_same_clips(ours, theirs)


def test_both_adapters_come_back(
    policy: WanPolicy, wan_folders: WanFolders, tmp_path: Path
) -> None:
    names = {name.split(".")[0] for name in policy.trainable()}
    assert names == {"transformer", "transformer_2"}
    policy.save(tmp_path)
    fresh = TWO_T2V.policy(wan_folders(TWO_T2V))
    fresh.load_trained(tmp_path)
    for name, value in policy.trainable().items():
        assert torch.equal(fresh.trainable()[name], value)
    (tmp_path / "transformer_2" / "pytorch_lora_weights.safetensors").unlink()
    with pytest.raises(UserError, match=r"transformer_2.*no such file"):
        fresh.load_trained(tmp_path)


def test_the_reference_has_neither_adapter(policy: WanPolicy, wan_folders: WanFolders) -> None:
    base = TWO_T2V.policy(wan_folders(TWO_T2V))
    prompts, latents = base.encode_prompts(["a", "b", "c"]), wan_noise(base)
    with torch.no_grad():
        wanted = base.velocity(latents, MIXED, prompts, 2.0)
        assert torch.equal(policy.reference_velocity()(latents, MIXED, prompts, 2.0), wanted)
        moved = (policy.velocity(latents, MIXED, prompts, 2.0) - wanted).abs()
    assert moved.amax(dim=(1, 2, 3, 4)).min() > 1e-3


def resident(experts: Experts) -> list[bool]:
    """Whose frozen weights are copies of those on the host: they are on the device."""
    return [
        all(parameter.data_ptr() != kept.data_ptr() for parameter, kept in weights.host)
        for weights in experts.waiting
    ]


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_idle_expert_waits_on_the_host(checkpointing: bool, wan_folders: WanFolders) -> None:
    """The device is another copy in the same memory here; what is where is the same."""
    policies = [
        TWO_T2V.policy(wan_folders(TWO_T2V), gradient_checkpointing=checkpointing) for _ in range(2)
    ]
    for each in policies:
        disturb(each)
    plain, policy = policies
    assert policy.experts is not None
    assert not policy.experts.waiting  # on the CPU there is nothing to gain
    experts = Experts(*policy.experts.both, BOUNDARY, torch.device("cpu"))
    policy.experts = experts
    prompts, latents = policy.encode_prompts(["a", "b", "c"]), wan_noise(policy)
    assert resident(experts) == [False, False]
    seen = []
    with torch.no_grad():
        for sigma in (0.9, 0.3, 0.9):
            found, expected = (
                each.velocity(latents, torch.full((3,), sigma), prompts, 2.0)
                for each in (policy, plain)
            )
            assert torch.equal(found, expected)
            seen.append(resident(experts))
    assert seen == [[True, False], [False, True], [True, False]]
    gradients: list[dict[str, Tensor | None]] = []
    for each in (policy, plain):
        each.velocity(latents, MIXED, prompts, 2.0).square().mean().backward()
        gradients.append({name: value.grad for name, value in each.trainable().items()})
    assert resident(experts) == [True, True]
    for name, gradient in gradients[0].items():
        other = gradients[1][name]
        assert gradient is not None
        assert other is not None
        assert gradient.any()
        assert torch.equal(gradient, other)


def test_a_run_trains_both(wan_folders: WanFolders, tmp_path: Path) -> None:
    trainer = make_wan_trainer(
        TWO_T2V, wan_folders(TWO_T2V), tmp_path, arm="flow_grpo", guidance=[2.0, 1.5]
    )
    before = {name: value.clone() for name, value in trainer.parameters.items()}
    trainer.run()
    moved = {
        name.split(".")[0]
        for name, value in trainer.parameters.items()
        if not torch.equal(value, before[name])
    }
    assert moved == {"transformer", "transformer_2"}
    lines = read_lines(tmp_path / "metrics.jsonl")
    assert all(line["ratio_deviation"] < 1e-5 for line in lines)
    assert lines[-1]["kl"] > 0
