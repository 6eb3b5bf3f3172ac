"""The Flux adapter: it computes what diffusers computes, and names what cannot be loaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_world import CAPTIONS, TOKENS, random_embeddings, tiny_policy
from torch import Tensor

from bpgo.errors import UserError
from bpgo.models.flux import FluxPolicy
from bpgo.seeding import generator
from bpgo.storage.digests import write_digests


@pytest.fixture
def spoilt(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy of a pipeline folder, to be spoilt."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "policy"))


def some_latents(policy: FluxPolicy, count: int = 3) -> Tensor:
    return torch.randn(count, *policy.latent_shape, generator=generator(1, "latents"))


def velocity_of(policy: FluxPolicy) -> Tensor:
    with torch.no_grad():
        sigma = torch.tensor([0.9, 0.5, 0.1])
        embeddings = random_embeddings(3).to(policy.device, policy.dtype)
        return policy.velocity(some_latents(policy), sigma, embeddings, 1.0)


def disturb(policy: FluxPolicy) -> None:
    with torch.no_grad():
        for number, parameter in enumerate(policy.trainable().values()):
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator(number))


@pytest.mark.parametrize("part", ["transformer", "vae", "scheduler", "text_encoder_2"])
def test_a_missing_part_is_named(part: str, spoilt: Path) -> None:
    shutil.rmtree(spoilt / part)
    with pytest.raises(UserError, match=f"not a FluxPipeline folder: missing {part}"):
        tiny_policy(spoilt)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        tiny_policy(tmp_path / "nowhere")
    assert str(tmp_path / "nowhere") in str(caught.value)


def other_class(folder: Path) -> None:
    shutil.rmtree(folder / "transformer")
    shutil.copytree(folder / "vae", folder / "transformer")


def no_weights(folder: Path) -> None:
    next((folder / "transformer").glob("*.safetensors")).unlink()


def cut_short(folder: Path) -> None:
    file = next((folder / "transformer").glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:1000])


def no_safetensors(folder: Path) -> None:
    next((folder / "transformer").glob("*.safetensors")).write_bytes(b"not safetensors")


def broken_configuration(folder: Path) -> None:
    (folder / "transformer" / "config.json").write_text("{")


def other_sizes(folder: Path) -> None:
    file = folder / "transformer" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"num_attention_heads": 3}))


def a_tensor_less(folder: Path) -> None:
    file = next((folder / "transformer").glob("*.safetensors"))
    state = load_file(file)
    save_file({name: state[name] for name in list(state)[1:]}, file)


@pytest.mark.parametrize(
    "damage",
    [
        other_class,
        no_weights,
        cut_short,
        no_safetensors,
        broken_configuration,
        other_sizes,
        a_tensor_less,
    ],
)
def test_what_cannot_be_loaded_is_named(damage: Callable[[Path], None], spoilt: Path) -> None:
    damage(spoilt)
    with pytest.raises(UserError) as caught:
        tiny_policy(spoilt)
    message = str(caught.value)
    assert f"{spoilt / 'transformer'}: cannot be loaded as FluxTransformer2DModel" in message
    assert len(message.splitlines()) == 1


def test_a_text_encoder_without_all_its_weights(spoilt: Path) -> None:
    file = spoilt / "text_encoder" / "model.safetensors"
    state = load_file(file)
    gone = next(name for name in state if "mlp" in name)
    del state[gone]
    save_file(state, file, metadata={"format": "pt"})
    with pytest.raises(UserError, match="1 tensors are missing") as caught:
        tiny_policy(spoilt).encode_prompts(CAPTIONS)
    assert str(spoilt / "text_encoder") in str(caught.value)


def test_one_wrong_bit_is_noticed_where_there_are_digests(spoilt: Path) -> None:
    write_digests(spoilt)
    tiny_policy(spoilt)
    file = next((spoilt / "vae").glob("*.safetensors"))
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match="is corrupted") as caught:
        tiny_policy(spoilt)
    assert file.name in str(caught.value)


@pytest.mark.parametrize("steps", [1, 4, 10, 28])
@pytest.mark.parametrize("kind", ["plain", "guided"])
def test_schedule_is_the_pipelines(
    kind: str, steps: int, tiny_folder: Path, tiny_guided_folder: Path
) -> None:
    import numpy as np
    from diffusers import FlowMatchEulerDiscreteScheduler
    from diffusers.pipelines.flux.pipeline_flux import calculate_shift

    policy = tiny_policy(tiny_folder if kind == "plain" else tiny_guided_folder)
    scheduler = FlowMatchEulerDiscreteScheduler.from_config(policy.scheduler.config)
    config = scheduler.config
    mu = calculate_shift(
        policy.latent_shape[0],
        config.base_image_seq_len,
        config.max_image_seq_len,
        config.base_shift,
        config.max_shift,
    )
    even = np.linspace(1.0, 1 / steps, steps)
    scheduler.set_timesteps(sigmas=even, mu=mu if config.use_dynamic_shifting else None)
    found = policy.sigmas(steps)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, scheduler.sigmas.float(), rtol=1e-6, atol=1e-7)
    assert found[-1] == 0
    assert (found.diff() < 0).all()


def test_embeddings_are_the_pipelines(tiny_folder: Path) -> None:
    from diffusers import FluxPipeline

    pipeline = FluxPipeline.from_pretrained(tiny_folder, local_files_only=True)
    with torch.no_grad():
        tokens, pooled, _ = pipeline.encode_prompt(CAPTIONS, CAPTIONS, max_sequence_length=TOKENS)
    found = tiny_policy(tiny_folder).encode_prompts(CAPTIONS)
    torch.testing.assert_close(found.tokens, tokens, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.pooled, pooled, rtol=1e-5, atol=1e-6)
    assert not found.tokens.requires_grad
    assert len(found) == len(CAPTIONS)


def test_velocity_is_float32_in_any_dtype(tiny_folder: Path) -> None:
    exact = velocity_of(tiny_policy(tiny_folder))
    for parameters in ("full", "lora"):
        rounded = velocity_of(tiny_policy(tiny_folder, parameters, dtype="bfloat16"))
        assert exact.dtype == rounded.dtype == torch.float32
        assert not torch.equal(rounded, exact)
        torch.testing.assert_close(rounded, exact, rtol=0.1, atol=0.05)


def test_guidance_counts_where_it_is_embedded(tiny_folder: Path, tiny_guided_folder: Path) -> None:
    for folder, differs in ((tiny_folder, False), (tiny_guided_folder, True)):
        policy, sigma = tiny_policy(folder), torch.full((3,), 0.5)
        with torch.no_grad():
            first, second = (
                policy.velocity(some_latents(policy), sigma, random_embeddings(3), guidance)
                for guidance in (1.0, 4.0)
            )
        assert torch.equal(first, second) is not differs


def test_full_weights_come_back(tiny_folder: Path, tmp_path: Path) -> None:
    trained = tiny_policy(tiny_folder)
    disturb(trained)
    trained.save(tmp_path / "policy")
    other = tiny_policy(tiny_folder)
    assert not torch.equal(velocity_of(other), velocity_of(trained))
    other.load_trained(tmp_path / "policy")
    assert torch.equal(velocity_of(other), velocity_of(trained))


def test_adapter_comes_back(tiny_folder: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"parameters": "lora", "lora": {"rank": 2, "alpha": 16.0}}
    trained = tiny_policy(tiny_folder, **options)
    disturb(trained)
    trained.save(tmp_path / "policy")
    assert [file.suffix for file in (tmp_path / "policy").iterdir()] == [".safetensors"]
    other = tiny_policy(tiny_folder, **options)
    other.load_trained(tmp_path / "policy")
    torch.testing.assert_close(velocity_of(other), velocity_of(trained), rtol=0, atol=0)


@pytest.mark.parametrize("parameters", ["full", "lora"])
@pytest.mark.parametrize("damage", ["missing", "broken", "other tensors"])
def test_trained_weights_that_do_not_fit(
    damage: str, parameters: str, tiny_folder: Path, tmp_path: Path
) -> None:
    policy = tiny_policy(tiny_folder, parameters, lora={"rank": 2})
    policy.save(tmp_path / "policy")
    file = next((tmp_path / "policy").rglob("*.safetensors"))
    if damage == "missing":
        file.unlink()
    elif damage == "broken":
        file.write_bytes(file.read_bytes()[:200])
    else:
        save_file({f"{name}.x": value for name, value in load_file(file).items()}, file)
    with pytest.raises(UserError) as caught:
        policy.load_trained(tmp_path / "policy")
    assert str(file) in str(caught.value)


def test_an_adapter_of_another_rank_does_not_fit(tiny_folder: Path, tmp_path: Path) -> None:
    tiny_policy(tiny_folder, "lora", lora={"rank": 2}).save(tmp_path / "policy")
    with pytest.raises(UserError, match="does not fit the model"):
        tiny_policy(tiny_folder, "lora", lora={"rank": 3}).load_trained(tmp_path / "policy")


def test_an_adapter_starts_as_the_base(tiny_folder: Path) -> None:
    base, adapted, again = (
        tiny_policy(tiny_folder, kind, lora={"rank": 2}) for kind in ("full", "lora", "lora")
    )
    assert torch.equal(velocity_of(adapted), velocity_of(base))
    ours, theirs = adapted.trainable(), again.trainable()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert all(value.dtype == torch.float32 for value in ours.values())
    assert (
        0
        < sum(p.numel() for p in ours.values())
        < sum(p.numel() for p in base.trainable().values())
    )


def test_an_adapter_for_nothing_is_refused(tiny_folder: Path) -> None:
    with pytest.raises(UserError, match=r"lora\.targets: no linear layer .* 'to_z'.* to_out\.0"):
        tiny_policy(tiny_folder, "lora", lora={"targets": ["to_q", "to_z"]})


@pytest.mark.parametrize("parameters", ["full", "lora"])
def test_reference_stays_where_it_was(parameters: str, tiny_folder: Path) -> None:
    policy = tiny_policy(tiny_folder, parameters, lora={"rank": 2})
    before, reference = velocity_of(policy), policy.reference_velocity()
    disturb(policy)
    after = velocity_of(policy)
    assert not torch.equal(after, before)
    sigma = torch.tensor([0.9, 0.5, 0.1])
    with torch.no_grad():
        found = reference(some_latents(policy), sigma, random_embeddings(3), 1.0)
    assert torch.equal(found, before)
    assert torch.equal(velocity_of(policy), after)


def test_only_the_transformer_is_trained(tiny_folder: Path) -> None:
    policy = tiny_policy(tiny_folder)
    assert set(policy.trainable()) == {name for name, _ in policy.transformer.named_parameters()}
    assert not any(parameter.requires_grad for parameter in policy.vae.parameters())
    assert not policy.transformer.training
