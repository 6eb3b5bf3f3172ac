"""Queries and keys turned by a complex product: the bits that diffusers' own code gives."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_world import make_trainer, model_settings, same, tiny_policy, weights
from torch import Tensor

from bpgo.config import resolve as config
from bpgo.interfaces import PromptEmbeddings
from bpgo.models import pipeline as pipeline_module
from bpgo.models import rotary
from bpgo.models.rotary import KeptTables, Rotary, RotaryProcessor, Turn, use_complex_rotary
from bpgo.models.stable_diffusion_3 import StableDiffusion3Policy
from bpgo.registry import load_model_class
from bpgo.seeding import generator
from bpgo.storage.files import repository_root

CONFIGURATIONS = {"flux": "config.yaml", "wan t2v": "scenes_t2v.yaml", "wan i2v": "scenes_i2v.yaml"}
BATCHES = (1, 3, 24, 96)
LORA = {"rank": 4, "alpha": 8, "targets": ["to_q", "to_k", "to_v", "to_out.0"]}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """As every job has it by default; put back by the fixture of all unit tests."""
    torch.set_num_threads(1)


@pytest.fixture
def diffusers_own(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Call it, and policies keep diffusers' own code."""
    return lambda: monkeypatch.setattr(pipeline_module, "use_complex_rotary", lambda *_: "")


def policy_of(world: str, parameters: str = "full") -> Any:
    """An embedded world's policy; an adapter away from zero, so that all of it has gradients."""
    settings = config.load(repository_root() / "config" / CONFIGURATIONS[world]).model
    if parameters == "lora":
        settings = type(settings).model_validate(settings.model_dump() | {"lora": LORA})
    policy: Any = load_model_class(settings.kind)(settings, parameters)
    draws = generator(5, world)
    with torch.no_grad():
        for value in policy.trainable().values():
            value += 0.02 * torch.randn(value.shape, generator=draws)
    return policy


def embeddings_of(policy: Any, batch: int) -> PromptEmbeddings:
    draws = generator(6, "embeddings")
    width = policy.config.get("joint_attention_dim") or policy.config.text_dim
    tokens = torch.randn(batch, policy.settings.prompt_tokens, width, generator=draws)
    if policy.settings.kind == "flux":
        return PromptEmbeddings(tokens, torch.randn(batch, width, generator=draws))
    if policy.settings.task == "t2v":
        return PromptEmbeddings(tokens)
    _, *places = policy.latent_shape
    channels = policy.config.in_channels - policy.latent_shape[0]
    condition = torch.randn(batch, channels, *places, generator=draws)
    return PromptEmbeddings(tokens, condition=condition)


def bits(policy: Any, batch: int) -> list[Tensor]:
    """Velocities without gradient and with it, and the gradients of latents and weights."""
    draws = generator(7, batch)
    latents = torch.randn(batch, *policy.latent_shape, generator=draws, requires_grad=True)
    sigma = torch.rand(batch, generator=draws)
    embeddings = embeddings_of(policy, batch)
    with torch.no_grad():
        found = [policy.velocity(latents, sigma, embeddings)]
    velocity = policy.velocity(latents, sigma, embeddings)
    velocity.backward(torch.randn(velocity.shape, generator=draws))
    found += [velocity.detach(), latents.grad]
    return found + [each.grad for each in policy.trainable().values()]


@pytest.mark.parametrize("parameters", ["full", "lora"])
@pytest.mark.parametrize("world", CONFIGURATIONS)
def test_velocities_and_gradients_have_the_bits_of_diffusers_own(
    world: str, parameters: str, diffusers_own: Callable[[], None]
) -> None:
    ours = policy_of(world, parameters)
    assert any(isinstance(each, KeptTables) for each in ours.transformer.modules())
    diffusers_own()
    theirs = policy_of(world, parameters)
    assert not any(isinstance(each, KeptTables) for each in theirs.transformer.modules())
    for batch in BATCHES:
        expected = bits(theirs, batch)
        assert all(each is not None for each in expected)
        assert all(map(torch.equal, bits(ours, batch), expected)), batch
        for policy in (ours, theirs):
            policy.transformer.zero_grad()


def test_gradient_checkpointing_gives_the_same_bits(diffusers_own: Callable[[], None]) -> None:
    ours = policy_of("flux")
    diffusers_own()
    theirs = policy_of("flux")
    for policy in (ours, theirs):
        policy.transformer.enable_gradient_checkpointing()
    assert all(map(torch.equal, bits(ours, 3), bits(theirs, 3)))


def test_a_training_has_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, diffusers_own: Callable[[], None]
) -> None:
    monkeypatch.setattr("tiny_world.WIDTH", 64)  # of embeddings, in the embedded world
    folder = repository_root() / "bpgo" / "scenes" / "weights" / "policy"
    found = []
    for name in ("ours", "theirs"):
        if name == "theirs":
            diffusers_own()
        trainer = make_trainer(folder, tmp_path / name)
        for iteration in (1, 2):
            trainer.iterate(iteration)
        found.append(weights(trainer))
    assert same(*found)
    base = dict(tiny_policy(folder).transformer.named_parameters())
    assert not same(found[0], {name: value.detach() for name, value in base.items()})


def test_neighbours_are_turned_by_their_positions_angle_and_gradients_back() -> None:
    quarter = torch.tensor([[1.0, 1.0], [0.0, 1j]]).to(torch.complex64)  # of two positions
    tables = Rotary(None, quarter, quarter.conj().resolve_conj())
    values = torch.tensor([[[1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 3.0, 4.0]]], requires_grad=True)
    turned = Turn.apply(values, tables)
    assert turned.tolist() == [[[1, 2, 3, 4], [0, 0, -4, 3]]]
    turned.backward(torch.tensor([[[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, -4.0, 3.0]]]))
    assert values.grad is not None
    assert values.grad.tolist() == [[[1, 1, 1, 1], [0, 0, 3, 4]]]


def test_tables_are_made_once_for_the_same_positions() -> None:
    policy = policy_of("flux")
    own, made = policy.transformer.pos_embed.own, []
    own.register_forward_pre_hook(lambda _, inputs: made.append(len(inputs[0])))
    sigma = torch.tensor([0.5])
    for tokens in (12, 12, 12, 5, 5):
        given = embeddings_of(policy, 1)
        prompts = PromptEmbeddings(given.tokens[:, :tokens], given.pooled)
        policy.velocity(torch.zeros(1, *policy.latent_shape), sigma, prompts)
    image = policy.latent_shape[0]
    assert made == [12 + image, 5 + image]


def test_more_threads_take_diffusers_own_code(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = policy_of("flux")
    alone = bits(policy, 3)[:2]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(Turn, "apply", lambda *_: pytest.fail("turned by a complex product"))
    assert all(map(torch.equal, bits(policy, 3)[:2], alone))


def test_a_reference_is_a_copy_of_its_own() -> None:
    policy = policy_of("wan t2v")
    twin = copy.deepcopy(policy.transformer)
    assert twin.rope is not policy.transformer.rope
    inputs = {
        "hidden_states": torch.ones(2, *policy.latent_shape),
        "timestep": torch.tensor([100.0, 900.0]),
        "encoder_hidden_states": embeddings_of(policy, 2).tokens,
        "return_dict": False,
    }
    assert torch.equal(twin(**inputs)[0], policy.transformer(**inputs)[0])
    assert twin.state_dict().keys() == policy.transformer.state_dict().keys()


def untouched(transformer: Any) -> bool:
    processors = [layer.processor for layer in transformer.modules() if hasattr(layer, "processor")]
    kept = any(isinstance(each, KeptTables) for each in transformer.modules())
    return not kept and not any(isinstance(each, RotaryProcessor) for each in processors)


def rounding_otherwise(values: Tensor, table: Tensor) -> Tensor:
    pairs = values.contiguous().view(torch.complex64)
    exact = pairs.to(torch.complex128) * table.view(pairs.shape[1:])
    return exact.to(torch.complex64).view(torch.float32)


def test_it_is_not_used_where_it_rounds_otherwise(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(rotary, "_product", rounding_otherwise)
    policy = policy_of("flux")
    assert untouched(policy.transformer)
    (line,) = capsys.readouterr().err.splitlines()
    assert "complex product is not used" in line
    assert "rounds otherwise" in line


def test_it_is_not_used_with_narrow_heads_and_one_line_says_so(
    tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = tiny_policy(tiny_folder)  # its heads are 8 numbers wide
    assert untouched(policy.transformer)
    (line,) = capsys.readouterr().err.splitlines()
    assert "'tiny'" in line
    assert "8 numbers wide, no multiple of 16" in line


@pytest.mark.parametrize(("dtype", "threads"), [(torch.bfloat16, 1), (torch.float32, 2)])
def test_it_is_not_used_in_another_dtype_or_with_threads(
    dtype: torch.dtype, threads: int, diffusers_own: Callable[[], None]
) -> None:
    diffusers_own()
    transformer = policy_of("flux").transformer
    torch.set_num_threads(threads)
    reason = use_complex_rotary(transformer, dtype)
    assert untouched(transformer)
    assert reason == ("torch has more than one thread" if threads > 1 else "")


def test_another_diffusers_keeps_its_own_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from diffusers.models.transformers.transformer_flux import FluxPosEmbed

    monkeypatch.setattr(FluxPosEmbed, "forward", lambda *_: None)
    policy = policy_of("flux")
    assert untouched(policy.transformer)
    assert "the attention of this diffusers is another" in capsys.readouterr().err


def test_a_transformer_without_rotary_embedding_is_left_alone(
    tiny_sd3_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = StableDiffusion3Policy(model_settings(tiny_sd3_folder, kind="stable_diffusion_3"))
    assert untouched(policy.transformer)
    assert capsys.readouterr().err == ""
