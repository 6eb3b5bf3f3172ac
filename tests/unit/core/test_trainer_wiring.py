"""The trainer hands each part what belongs to it: prompts, noise, steps, guidance, averages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_world import CAPTIONS, make_trainer, random_embeddings, same, weights
from torch import Tensor

from bpgo.core import trainer as module
from bpgo.core.trainer import Trainer
from bpgo.records import Samples

GROUP = 4  # of `tiny_settings`


def rollouts_of(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Any, Any]]:
    """Embeddings, noise and result of every rollout."""
    found: list[tuple[Any, Any, Any]] = []
    real = module.rollout

    def watch(policy: Any, prompts: Any, noise: Tensor, *arguments: Any) -> Any:
        drawn = real(policy, prompts, noise, *arguments)
        found.append((prompts, noise, drawn))
        return drawn

    monkeypatch.setattr(module, "rollout", watch)
    return found


def test_each_sample_is_scored_on_the_prompt_it_was_drawn_for(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts: list[list[str]] = []
    images: list[Tensor] = []

    def reads_its_prompt(samples: Samples) -> Tensor:
        texts.append(samples.texts)
        images.append(samples.pixels)
        return torch.tensor([float(CAPTIONS.index(text)) for text in samples.texts])

    trainer = make_trainer(tiny_folder, tmp_path, reward=reads_its_prompt)
    trainer.diagnostics = {}
    drawn = rollouts_of(trainer, monkeypatch)
    trainer.iterate(1)
    ((prompts, _, found),) = drawn
    known = random_embeddings(len(CAPTIONS))
    assert len(set(texts[0])) == 2
    for row, text in enumerate(texts[0]):
        place = CAPTIONS.index(text)
        assert torch.equal(prompts.tokens[row], known.tokens[place])
        assert torch.equal(prompts.pooled[row], known.pooled[place])
    assert torch.equal(images[0], trainer.policy.decode(found.latents[:, -1]))


def test_the_update_sees_each_samples_own_prompt(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(tiny_folder, tmp_path)
    drawn = rollouts_of(trainer, monkeypatch)
    calls: list[tuple[Tensor, Tensor]] = []
    velocity = trainer.policy.velocity

    def watch(latents: Tensor, sigma: Tensor, prompts: Any, *rest: Any) -> Tensor:
        if torch.is_grad_enabled():
            calls.append((latents, prompts.tokens))
        return velocity(latents, sigma, prompts, *rest)

    monkeypatch.setattr(trainer.policy, "velocity", watch)
    trainer.iterate(1)
    ((prompts, _, found),) = drawn
    path = found.latents.flatten(2)
    seen = 0
    for latents, tokens in calls:
        for row in range(len(latents)):
            matches = (path == latents[row].flatten()).all(2).nonzero()
            owners = {int(sample) for sample, _ in matches}
            assert any(torch.equal(tokens[row], prompts.tokens[owner]) for owner in owners)
            seen += 1
    assert seen == 2 * GROUP * trainer.arm.passes(trainer.settings.rollout).trained


def test_the_trained_steps_follow_the_iteration_and_the_seed(
    tiny_folder: Path, tmp_path: Path
) -> None:
    trainer = make_trainer(tiny_folder, tmp_path, arm_changes={"step_selection": "per_sample"})
    other = make_trainer(
        tiny_folder, tmp_path, seed=2, arm_changes={"step_selection": "per_sample"}
    )
    first, second = trainer.plan(1).trained, trainer.plan(2).trained
    assert torch.equal(first, trainer.plan(1).trained)
    assert not torch.equal(first, second)
    assert not torch.equal(first, other.plan(1).trained)


@pytest.mark.parametrize("shared", [True, False])
def test_a_group_starts_where_its_arm_says(
    shared: bool, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(tiny_folder, tmp_path, arm_changes={"shared_initial_noise": shared})
    drawn = rollouts_of(trainer, monkeypatch)
    trainer.iterate(1)
    start = drawn[0][2].latents[:, 0].unflatten(0, (2, GROUP))
    for group in start:
        assert torch.equal(group, group[:1].expand_as(group)) == shared
    assert not torch.equal(start[0, 0], start[1, 0])


def test_the_reference_has_the_rollouts_guidance(tiny_guided_folder: Path, tmp_path: Path) -> None:
    """Before the first optimizer step policy and reference agree: the KL is exactly 0."""
    trainer = make_trainer(
        tiny_guided_folder,
        tmp_path,
        arm="flow_grpo",
        rollout={"guidance_scale": 3.5},
        training={"optimizer_steps": 1},
    )
    assert trainer.iterate(1)["kl"] == 0.0
    assert trainer.iterate(2)["kl"] > 0.0


def test_the_judged_average_has_the_last_optimizer_step(tiny_folder: Path, tmp_path: Path) -> None:
    """After one step, the average has moved by 1 - 1/10 towards the weights of after that step."""
    trainer = make_trainer(
        tiny_folder,
        tmp_path,
        training={"optimizer_steps": 1, "ema_decay": 0.9, "ema_every": 1},
    )
    base = {name: value.clone() for name, value in weights(trainer).items()}
    trainer.iterate(1)
    expected = {
        name: base[name].lerp(value, 1 - 1 / 10) for name, value in weights(trainer).items()
    }
    assert not same(base, weights(trainer))
    assert same(trainer.averages["judged"].average, expected)


def test_a_reward_that_follows_the_text_changes_what_is_learned(
    tiny_folder: Path, tmp_path: Path
) -> None:
    """Other texts on the same samples give other rewards, groups and weights."""

    def by_text(order: int) -> Any:
        def reward(samples: Samples) -> Tensor:
            sign = torch.tensor(
                [1.0 if (CAPTIONS.index(text) + order) % 2 else -1.0 for text in samples.texts]
            )
            return sign * samples.pixels[:, 0].mean((1, 2))

        return reward

    first, second = (
        make_trainer(tiny_folder, tmp_path / str(order), reward=by_text(order)) for order in (0, 1)
    )
    for trainer in (first, second):
        trainer.diagnostics = {}
        trainer.iterate(1)
    assert not same(weights(first), weights(second))
