"""The arm's interface is as wide as the published algorithms: toy arms of each kind train."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from advantages import PLAIN
from tiny_world import make_trainer, same, trained, weights
from torch import Tensor

from bpgo.core.arm import Average
from bpgo.core.forward_process import ForwardProcess
from bpgo.core.policy_gradient import PolicyGradient
from bpgo.core.seen import Seen, StepLoss
from bpgo.core.trainer import Trainer
from bpgo.records import GroupRewards, Passes, Samples, WeightedAdvantage
from bpgo.run.progress import read_lines

PROMPTS, GROUP, STEPS = 2, 4, 4  # of `tiny_settings`


class EachSite(PolicyGradient):
    """A value for each latent site, made of what is seen in the image (as VIPO)."""

    per_site: ClassVar[bool] = True

    def observe(self, samples: Tensor) -> Tensor:
        """How bright each image is."""
        return samples.mean(dim=(1, 2, 3))

    def advantage(self, groups: GroupRewards) -> WeightedAdvantage:
        plain = super().advantage(groups).advantage
        assert groups.features is not None
        assert groups.features.shape == plain.shape
        sites = torch.arange(9) % 2  # every second site has no say
        return WeightedAdvantage(1.0, plain[..., None] * sites, over="site")

    def loss(self, seen: Seen, advantage: Tensor) -> StepLoss:
        assert seen.ratio.shape == advantage.shape == (len(seen), 9)
        rows = -(advantage * seen.ratio).mean(1)
        return StepLoss(rows, seen.ratio)


class EachStep(PolicyGradient):
    """An advantage for each step (as BranchGRPO): here none but at step 0."""

    def advantage(self, groups: GroupRewards) -> WeightedAdvantage:
        plain = super().advantage(groups).advantage
        first = torch.arange(STEPS) == 0
        return WeightedAdvantage(1.0, plain[..., None] * first, over="step")


class WholeGroups(PolicyGradient):
    """A loss that compares the samples of a group (as DGPO and CRD)."""

    whole_groups: ClassVar[bool] = True

    def loss(self, seen: Seen, advantage: Tensor) -> StepLoss:
        groups = (seen.points.rows // GROUP).view(-1, GROUP)
        assert (groups == groups[:, :1]).all()
        assert (seen.points.rows.view(-1, GROUP) % GROUP == torch.arange(GROUP)).all()
        by_group = seen.log_ratio.view(-1, GROUP)
        centred = by_group - by_group.mean(1, keepdim=True)
        return StepLoss(-(centred.flatten() * advantage), seen.ratio)


class Lagging(ForwardProcess):
    """No log-probability; a policy that follows more slowly draws the samples (as DiffusionNFT)."""

    draws_with: ClassVar[str | None] = "old"

    def averages(self) -> dict[str, Average]:
        return {
            # n counts optimizer steps, of which an iteration makes two.
            "old": Average(lambda n: 0.5 if n > 2 else 1.0),
            "fast": Average(lambda _: 0.0, every="step"),
        }

    def others(self) -> list[str]:
        return ["old", "fast"]

    def loss(self, seen: Seen, advantage: Tensor) -> StepLoss:
        level = seen.sigma.view(-1, 1, 1)
        assert torch.equal(seen.latents, (1 - level) * seen.sample + level * seen.noise)
        # Each step of the optimizer is taken by `fast` at once, and not at all by `old`.
        assert torch.equal(seen.others["fast"], seen.velocity.detach())
        target = seen.noise - seen.sample
        return StepLoss(advantage * (seen.velocity - target).square().flatten(1).mean(1))


FORWARD: dict[str, Any] = {
    "algorithm": "grpo",
    "title": "Toy",
    "shared_initial_noise": False,
    "skipped_levels": 0,
    "level_fraction": 1.0,
    "trained_fraction": 0.5,
    "level_selection": "per_sample",
    "advantage": PLAIN,
    "kl_weight": 0.0,
}


def lagging_trainer(folder: Path, output: Path, **options: Any) -> Trainer:
    settings = ForwardProcess.Settings.model_validate(FORWARD)
    return make_trainer(folder, output, arm_class=lambda _: Lagging(settings), **options)


@pytest.mark.parametrize("arm", [EachSite, EachStep, WholeGroups])
def test_an_arm_trains(arm: type[PolicyGradient], tiny_folder: Path, tmp_path: Path) -> None:
    trainer = make_trainer(
        tiny_folder,
        tmp_path,
        arm_class=arm,
        arm_changes={"step_selection": "all", "trained_fraction": 1.0},
    )
    before = {name: value.clone() for name, value in weights(trainer).items()}
    trainer.run()
    assert not same(before, weights(trainer))
    entries = read_lines(tmp_path / "metrics.jsonl")
    assert all(entry["ratio_deviation"] == 0.0 for entry in entries)
    assert all(math.isfinite(value) for entry in entries for value in entry.values())
    logged = torch.tensor(read_lines(tmp_path / "rollouts.jsonl")[0]["advantage"])
    assert logged.shape == (PROMPTS, GROUP)


def test_an_advantage_of_each_step_is_the_steps(tiny_folder: Path, tmp_path: Path) -> None:
    """With an advantage at step 0 alone, the gradient is that of training step 0 alone."""

    class Zero(PolicyGradient):
        def trained_steps(self, candidates: list[int], batch: int, generator: Any) -> Tensor:
            return torch.zeros(batch, 1, dtype=torch.long)

    options: dict[str, Any] = {
        "training": {"optimizer_steps": 1, "gradient_clip": 1e9},
        "arm_changes": {"step_selection": "all", "trained_fraction": 1.0},
    }
    found = []
    for arm in (EachStep, Zero):
        trainer = make_trainer(tiny_folder, tmp_path / arm.__name__, arm_class=arm, **options)
        trainer.iterate(1)
        found.append({k: p.grad.clone() for k, p in trainer.parameters.items()})
    for name, value in found[0].items():
        torch.testing.assert_close(3 * value, found[1][name], rtol=1e-4, atol=1e-7)


def test_a_policy_that_lags_draws_the_samples(tiny_folder: Path, tmp_path: Path) -> None:
    """It does not move in iteration 1, so iteration 2 draws what the base policy would."""
    trainer = lagging_trainer(tiny_folder, tmp_path)
    base = {name: value.clone() for name, value in weights(trainer).items()}
    drawn: list[dict[str, Tensor]] = []
    draw = trainer._rollout

    def watch(*arguments: Any) -> Any:
        found = draw(*arguments)
        with trainer._drawing():
            drawn.append({name: value.clone() for name, value in weights(trainer).items()})
        return found

    trainer._rollout = watch  # type: ignore[method-assign]
    for iteration in (1, 2, 3):
        trainer.iterate(iteration)
    assert same(drawn[0], base)
    assert same(drawn[1], base)
    assert not same(drawn[2], base)
    old, own = trainer.averages["old"], weights(trainer)
    assert not same(old.average, own)


def test_passes_are_those_that_are_made(tiny_folder: Path, tmp_path: Path) -> None:
    """Where no sample shares its start, the transformer is called on as many as the arm says."""
    alone = {"shared_initial_noise": False}
    cases: dict[str, tuple[Any, dict[str, Any], Passes]] = {
        "grpo": (None, {"arm_changes": alone}, Passes(4, 2, 0)),
        "flow_grpo": (None, {"arm": "flow_grpo"}, Passes(4, 2, 2)),
        "each step": (
            EachStep,
            {
                "arm_changes": alone | {"step_selection": "all", "trained_fraction": 1.0},
                "training": {"optimizer_steps": 1},  # three full passes of 8
            },
            Passes(4, 3, 0),
        ),
    }
    for name, (arm, options, expected) in cases.items():
        extra = {} if arm is None else {"arm_class": arm}
        trainer = make_trainer(tiny_folder, tmp_path / name, **extra, **options)
        assert_passes(trainer, expected)
    assert_passes(lagging_trainer(tiny_folder, tmp_path / "lagging"), Passes(4, 2, 4))


def assert_passes(trainer: Trainer, expected: Passes) -> None:
    counted = {True: 0, False: 0}

    def count(_: Any, __: Any, named: dict[str, Any]) -> None:
        counted[torch.is_grad_enabled()] += len(named["hidden_states"])

    # A frozen copy of the reference keeps no hook: it is counted by its own.
    trainer.policy.transformer.register_forward_pre_hook(count, with_kwargs=True)
    reference = trainer.updater.others.get("base")
    if reference is not None:
        reference.__self__.transformer.register_forward_pre_hook(  # type: ignore[attr-defined]
            count, with_kwargs=True
        )
    entry = trainer.iterate(1)
    sizes = trainer.settings.rollout
    batch = sizes.prompts_per_iteration * sizes.group_size
    assert trainer.arm.passes(sizes) == expected
    assert counted[True] == batch * expected.trained == entry["trained_passes"]
    assert entry["rollout_passes"] == batch * expected.rollout
    assert entry["other_passes"] == batch * expected.others
    assert counted[False] == entry["rollout_passes"] + entry["other_passes"]


def test_passes_that_are_made_are_logged(tiny_folder: Path, tmp_path: Path) -> None:
    """A shared start is computed once a group: 4 rows, filled up to 8 in a pass; else 24 a step."""
    trainer = make_trainer(
        tiny_folder,
        tmp_path,
        arm_changes={"step_selection": "all", "trained_fraction": 1.0},
        rollout={"prompts_per_iteration": 4, "group_size": 6, "batch_size": 24},
        training={"optimizer_steps": 1},
    )
    counted = {True: 0, False: 0}

    def count(_: Any, __: Any, named: dict[str, Any]) -> None:
        counted[torch.is_grad_enabled()] += len(named["hidden_states"])

    trainer.policy.transformer.register_forward_pre_hook(count, with_kwargs=True)
    entry = trainer.iterate(1)
    assert entry["ratio_deviation"] == 0.0
    assert entry["rollout_passes"] == 4 + 3 * 24
    assert counted[False] == 8 + 3 * 24
    kept = 4 - entry["groups_dropped"]
    assert entry["trained_passes"] == kept + 2 * 6 * kept <= counted[True] < 3 * 24


def test_parts_of_a_sum_reach_the_arm(tiny_folder: Path, tmp_path: Path) -> None:
    seen: list[GroupRewards] = []

    class Watching(PolicyGradient):
        def advantage(self, groups: GroupRewards) -> WeightedAdvantage:
            seen.append(groups)
            return super().advantage(groups)

    class Sum:
        weights: ClassVar[dict[str, float]] = {"red": 2.0, "blue": 1.0}

        def parts(self, samples: Samples) -> dict[str, Tensor]:
            red, _, blue = samples.pixels.mean((2, 3)).unbind(1)
            return {"red": red, "blue": blue}

        def scaled(self, parts: dict[str, Tensor]) -> dict[str, Tensor]:
            return {name: 10 * value for name, value in parts.items()}

        def combine(self, parts: dict[str, Tensor]) -> Tensor:
            return 20 * parts["red"] + 10 * parts["blue"]

        def __call__(self, samples: Samples) -> Tensor:
            return self.combine(self.parts(samples))

    trained(tiny_folder, tmp_path, arm_class=Watching, reward=Sum(), training={"iterations": 2})
    for groups in seen:
        summed = 2 * groups.parts["red"] + groups.parts["blue"]
        torch.testing.assert_close(summed, groups.rewards, rtol=1e-5, atol=1e-6)
        assert groups.part_weights == Sum.weights
        assert groups.plan is not None
        assert groups.plan.trained.shape == (PROMPTS * GROUP, 2)
        assert groups.ambiguity is not None
        assert groups.ambiguity.tolist() == pytest.approx(
            [int(prompt[1:]) / 6 for prompt in groups.prompt_ids]
        )
        assert groups.reference == {}


def test_what_differs_before_the_first_step_is_logged(tiny_folder: Path, tmp_path: Path) -> None:
    trained(tiny_folder, tmp_path, arm_changes={"step_selection": "per_sample"})
    for entry in read_lines(tmp_path / "metrics.jsonl"):
        steps = [k.rsplit("_", 1)[1] for k in entry if k.startswith("first_log_ratio_mean")]
        assert set(steps) <= {"0", "1", "2"}
        assert steps
        for step in steps:
            assert entry[f"first_log_ratio_mean_{step}"] == 0.0
            assert entry[f"first_log_ratio_max_{step}"] == 0.0
        assert entry["first_clip_fraction"] == 0.0
