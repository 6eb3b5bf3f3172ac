"""The optimizer steps: first ratios are exactly 1, and the guards stop before anything changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_world import ARMS, CALIBRATION, random_embeddings, redness, tiny_policy, tiny_settings
from torch import Tensor

from bpgo.core import update as module
from bpgo.core.arm import Arm
from bpgo.core.rollout import rollout, rollout_noise
from bpgo.core.update import Updater, UpdateReport
from bpgo.errors import NonFiniteError, RatioError
from bpgo.records import AdvantageResult, GroupRewards, Rollout, Samples, WeightedAdvantage
from bpgo.registry import load_arm_class
from bpgo.run.ema import EMA, warmed_up
from bpgo.run.optimizer import AdamW
from bpgo.seeding import generator

PROMPTS, GROUP, STEPS = 3, 4, 4
BATCH = PROMPTS * GROUP
# No clip, no tolerance and a single optimizer step, so that gradients can be compared.
PLAIN = {"optimizer_steps": 1, "gradient_clip": 1e9, "ratio_tolerance": 1e9}


class Case:
    """A tiny policy, one batch it drew, and an updater for it."""

    def __init__(
        self, folder: Path, arm: str = "grpo", plain: bool = False, **options: Any
    ) -> None:
        changes = {**ARMS[arm], **options.pop("arm_changes", {})}
        self.batch_size = options.pop("batch_size", BATCH)
        training = {**(PLAIN if plain else {}), **options.pop("training", {})}
        self.settings = tiny_settings(
            folder,
            arms={arm: changes},
            training={"learning_rate": 1e-3, **training},
            rollout={"prompts_per_iteration": PROMPTS, "group_size": GROUP, "steps": STEPS},
        )
        self.guidance = options.pop("guidance", 1.0)
        self.policy = tiny_policy(folder, **options)
        arm_settings: Any = self.settings.arms[arm]
        self.arm: Arm = load_arm_class(arm_settings.algorithm)(arm_settings)
        rows = torch.arange(PROMPTS).repeat_interleave(GROUP)
        embeddings = random_embeddings(PROMPTS).select(rows)
        self.prompts = embeddings.to(self.policy.device, self.policy.dtype)
        self.plan = self.arm.plan(self.settings.rollout, 1, generator(1, "steps"))
        self.averages: list[EMA] = []
        self.parameters = self.policy.trainable()
        reference = self.policy.reference_velocity()
        self.updater = Updater(
            self.policy,
            self.arm,
            AdamW(list(self.parameters.values()), lr=1e-3, weight_decay=0.0),
            self.parameters,
            self.settings.training,
            self.guidance,
            self.batch_size,
            self.averages,
            {"base": reference} if self.arm.others() else {},
        )
        self.batch = self.draw()
        images = self.policy.decode(self.batch.latents[:, -1])
        rewards = redness(Samples(images, [""] * BATCH)).view(PROMPTS, GROUP)
        self.groups = GroupRewards(rewards, [f"p{k}" for k in range(PROMPTS)], CALIBRATION)

    def draw(self) -> Rollout:
        names = ["a", "b", "c"]
        noise = rollout_noise(self.policy.latent_shape, STEPS, 1, 1, names, self.plan.noise_of)
        return rollout(
            self.policy,
            self.prompts,
            noise,
            self.policy.sigmas(STEPS),
            self.arm.kernel,
            self.arm.noise_level,
            self.plan,
            self.updater.layout(self.plan, GROUP),
            self.guidance,
        )

    @property
    def advantages(self) -> AdvantageResult:
        return self.arm.advantages(self.groups, generator(1, "arm"))

    def update(self, advantages: AdvantageResult | None = None) -> UpdateReport:
        return self.updater.update(
            self.batch,
            self.prompts,
            advantages or self.advantages,
            self.plan,
            self.updater.layout(self.plan, GROUP),
        )

    def disturb(self, amount: float = 1e-3) -> None:
        """Move the weights, as an optimizer step would."""
        with torch.no_grad():
            for number, parameter in enumerate(self.parameters.values()):
                draws = generator(2, "disturb", number)
                parameter += amount * torch.randn(parameter.shape, generator=draws)

    def weights(self) -> dict[str, Tensor]:
        return {name: p.detach().clone() for name, p in self.parameters.items()}

    def gradient(self, advantages: AdvantageResult | None = None) -> dict[str, Tensor]:
        """The gradient of one optimizer step, which is then taken back."""
        before = self.weights()
        self.update(advantages)
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(before[name])
        return {name: _gradient(parameter).clone() for name, parameter in self.parameters.items()}


def _gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def assert_same_gradient(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    scale = max(float(value.abs().max()) for value in first.values())
    assert scale > 0
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=1e-4, atol=1e-4 * scale)


def terms(*pairs: tuple[float, Tensor]) -> AdvantageResult:
    return AdvantageResult([WeightedAdvantage(weight, value) for weight, value in pairs])


@pytest.mark.parametrize("selection", ["shared", "per_sample"])
@pytest.mark.parametrize("arm", ARMS)
def test_first_ratios_are_exactly_1(arm: str, selection: str, tiny_folder: Path) -> None:
    case = Case(tiny_folder, arm, arm_changes={"step_selection": selection})
    report = case.update()
    assert report.ratio_deviation == 0.0
    assert len(report.gradient_norms) == 2
    assert report.means()["gradient_norm"] > 0


@pytest.mark.parametrize("kernel", ["wan", "cps"])
def test_first_ratios_are_exactly_1_with_other_kernels(kernel: str, tiny_folder: Path) -> None:
    case = Case(tiny_folder, "flow_grpo", arm_changes={"kernel": kernel})
    assert case.update().ratio_deviation == 0.0


@pytest.mark.parametrize("size", [3, 4, 6])
def test_first_ratios_are_exactly_1_in_chunks(size: int, tiny_folder: Path) -> None:
    assert Case(tiny_folder, batch_size=size).update().ratio_deviation == 0.0


def test_first_ratios_where_points_do_not_fill_the_passes(tiny_folder: Path) -> None:
    """Twelve points in passes of five: the last pass is filled up."""
    assert Case(tiny_folder, batch_size=5).update().ratio_deviation == 0.0


def test_first_ratios_are_exactly_1_with_an_adapter(tiny_folder: Path) -> None:
    case = Case(tiny_folder, parameters="lora", lora={"rank": 2})
    assert case.update().ratio_deviation == 0.0


def test_first_ratios_with_bfloat16_weights(tiny_folder: Path) -> None:
    case = Case(tiny_folder, dtype="bfloat16")
    assert case.update().ratio_deviation == 0.0


def test_guard_notices_another_noise_level(tiny_folder: Path) -> None:
    case = Case(tiny_folder)
    case.arm.settings = case.arm.settings.model_copy(update={"noise_level": 0.61})
    with pytest.raises(RatioError, match="noise level"):
        case.update()


def test_guard_notices_other_weights(tiny_folder: Path) -> None:
    case = Case(tiny_folder)
    case.disturb()
    before = case.weights()
    with pytest.raises(RatioError, match=r"tolerance \(training\.ratio_tolerance\) is"):
        case.update()
    assert all(torch.equal(value, before[name]) for name, value in case.weights().items())


def test_guard_notices_another_guidance(tiny_guided_folder: Path) -> None:
    case = Case(tiny_guided_folder, guidance=3.5)
    assert case.update().ratio_deviation == 0.0
    case = Case(tiny_guided_folder, guidance=3.5)
    case.updater.guidance_scale = 3.0
    with pytest.raises(RatioError, match="guidance"):
        case.update()


def test_guard_notices_rounded_latents(tiny_folder: Path) -> None:
    case = Case(tiny_folder)
    rounded = case.batch.latents.bfloat16().float()
    case.batch = replace(case.batch, latents=rounded)
    with pytest.raises(RatioError, match="smaller dtype"):
        case.update()


def test_guard_takes_nan_for_a_deviation(tiny_folder: Path) -> None:
    case = Case(tiny_folder)
    case.batch.log_probs[0] = float("nan")
    with pytest.raises(RatioError):
        case.update()


def test_later_ratios_may_differ(tiny_folder: Path) -> None:
    report = Case(tiny_folder, training={"learning_rate": 1e-2}).update()
    assert report.ratio_deviation == 0.0
    assert report.means()["clip_fraction"] > 0


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_changes_nothing(bad: float, tiny_folder: Path) -> None:
    case = Case(tiny_folder)
    advantage = case.advantages.terms[0].advantage
    advantage[1, 0] = bad  # of the first optimizer step
    before = case.weights()
    with pytest.raises(NonFiniteError, match="no optimizer step was made"):
        case.update(terms((1.0, advantage)))
    assert all(torch.equal(value, before[name]) for name, value in case.weights().items())
    assert not case.updater.optimizer.state


def test_groups_without_advantage_are_dropped(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case(tiny_folder, plain=True)
    case.disturb()
    advantage = case.advantages.terms[0].advantage.clone()
    advantage[1] = 0
    dropped = case.gradient(terms((1.0, advantage)))
    assert case.update(terms((1.0, advantage))).groups_dropped == 1
    monkeypatch.setattr(module, "_active_rows", lambda *_: (torch.ones(BATCH).bool(), 0))
    case = Case(tiny_folder, plain=True)
    case.disturb()
    assert_same_gradient(dropped, case.gradient(terms((1.0, advantage))))


def test_dropping_saves_forward_passes(tiny_folder: Path) -> None:
    case = Case(tiny_folder, batch_size=GROUP, training={"split": "steps"})
    sizes: list[int] = []
    case.policy.transformer.register_forward_pre_hook(
        lambda _module, _arguments, named: sizes.append(len(named["hidden_states"])),
        with_kwargs=True,
    )
    advantage = case.advantages.terms[0].advantage.clone()
    advantage[0] = 0
    report = case.update(terms((1.0, advantage)))
    assert sizes == [GROUP] * 3  # two of three groups, two steps; they share the first one's start
    assert report.groups_dropped == 1
    assert report.ratio_deviation == 0.0


def test_first_ratios_are_exactly_1_when_a_pass_shrinks(tiny_folder: Path) -> None:
    case = Case(tiny_folder)
    advantage = case.advantages.terms[0].advantage.clone()
    advantage[1] = 0
    assert case.update(terms((1.0, advantage))).ratio_deviation == 0.0


def test_a_group_with_any_term_is_kept(tiny_folder: Path) -> None:
    case = Case(tiny_folder)
    first = case.advantages.terms[0].advantage.clone()
    second = first.clone()
    first[0], second[1], first[2], second[2] = 0, 0, 0, 0
    assert case.update(terms((1.0, first), (0.5, second))).groups_dropped == 1


def test_nothing_moves_without_advantages(tiny_folder: Path) -> None:
    case = Case(tiny_folder)
    before = case.weights()
    report = case.update(terms((1.0, torch.zeros(PROMPTS, GROUP))))
    assert report.groups_dropped == PROMPTS
    assert all(torch.equal(value, before[name]) for name, value in case.weights().items())
    assert report.means()["gradient_norm"] == 0.0


@pytest.mark.parametrize("size", [1, 4, 5])
def test_accumulated_gradient_is_the_batch_gradient(size: int, tiny_folder: Path) -> None:
    case = Case(tiny_folder, plain=True)
    case.disturb()
    whole = case.gradient()
    case.updater.batch_size = size
    assert_same_gradient(whole, case.gradient())


def test_columns_of_one_optimizer_step_are_averaged(tiny_folder: Path) -> None:
    case = Case(tiny_folder, plain=True)
    case.disturb()
    assert case.plan.trained.shape == (BATCH, 2)
    together = case.gradient()
    both = case.plan
    parts = []
    for column in (0, 1):
        case.plan = replace(both, trained=both.trained[:, [column]])
        parts.append(case.gradient())
    assert_same_gradient(
        together, {name: (parts[0][name] + parts[1][name]) / 2 for name in together}
    )


def test_gradient_is_the_policy_gradient(tiny_folder: Path) -> None:
    """At ratio 1 the loss is -A r, so the gradient is the mean of -A grad log p."""
    case = Case(tiny_folder, plain=True)
    case.plan = replace(case.plan, trained=case.plan.trained[:, :1])
    found = case.gradient()
    step = int(case.plan.trained[0, 0])
    sigma, sigma_next = case.batch.sigmas[step], case.batch.sigmas[step + 1]
    latents, target = case.batch.latents[:, step], case.batch.latents[:, step + 1]
    velocity = case.policy.velocity(latents, sigma.expand(BATCH), case.prompts, 1.0)
    drop, eta = sigma - sigma_next, 0.6
    score = -(latents + (1 - sigma) * velocity) / sigma
    mean = latents - drop * velocity + eta**2 / 2 * drop * score
    log_prob = -((target - mean).square() / (2 * eta**2 * drop)).flatten(1).mean(1)
    loss = -(case.advantages.terms[0].advantage.flatten() * log_prob).mean()
    gradients = torch.autograd.grad(loss, list(case.parameters.values()))
    assert_same_gradient(found, dict(zip(case.parameters, gradients, strict=True)))


def test_two_terms_are_two_losses(tiny_folder: Path) -> None:
    case = Case(tiny_folder, plain=True)
    case.disturb(3e-3)
    first = case.advantages.terms[0].advantage
    second = torch.randn(first.shape, generator=generator(3, "advantage"))
    report = case.update(terms((1.0, first), (0.5, second)))
    assert 0 < report.means()["clip_fraction"] < 1  # so that the two are clipped differently
    case = Case(tiny_folder, plain=True)
    case.disturb(3e-3)
    both = case.gradient(terms((1.0, first), (0.5, second)))
    parts = [case.gradient(terms((1.0, value))) for value in (first, second)]
    assert_same_gradient(both, {name: parts[0][name] + 0.5 * parts[1][name] for name in both})


def test_two_terms_share_one_forward_pass(tiny_folder: Path) -> None:
    case = Case(tiny_folder)
    calls: list[int] = []
    case.policy.transformer.register_forward_hook(lambda *_: calls.append(1))
    advantage = case.advantages.terms[0].advantage
    case.update(terms((1.0, advantage), (0.5, -advantage)))
    assert len(calls) == 2  # one for each optimizer step


def test_kl_is_zero_at_the_start_and_pulls_back(tiny_folder: Path) -> None:
    case = Case(tiny_folder, "flow_grpo", plain=True, arm_changes={"kl_weight": 1.0})
    nothing = terms((1.0, torch.zeros(PROMPTS, GROUP)))
    before = case.weights()
    report = case.update(nothing)
    assert report.means()["kl"] == 0.0
    assert report.groups_dropped == 0  # a KL term moves every sample
    assert all(torch.equal(value, before[name]) for name, value in case.weights().items())
    case.disturb(1e-2)
    far = case.update(nothing).means()["kl"]
    near = case.update(nothing).means()["kl"]
    assert 0 < near < far


def test_kl_weight_scales_its_gradient(tiny_folder: Path) -> None:
    nothing = terms((1.0, torch.zeros(PROMPTS, GROUP)))
    found = []
    for weight in (1.0, 3.0):
        case = Case(tiny_folder, "flow_grpo", plain=True, arm_changes={"kl_weight": weight})
        case.disturb()
        found.append(case.gradient(nothing))
    assert_same_gradient({name: 3 * value for name, value in found[0].items()}, found[1])


def test_gradient_is_clipped_to_the_norm(tiny_folder: Path) -> None:
    case = Case(tiny_folder, plain=True, training={"gradient_clip": 1e-3})
    change = case.gradient()
    norm = torch.stack([value.norm() for value in change.values()]).norm()
    torch.testing.assert_close(norm, torch.tensor(1e-3), rtol=1e-2, atol=0)


def test_average_follows_every_optimizer_step(tiny_folder: Path) -> None:
    case = Case(tiny_folder)
    average = EMA(case.parameters, warmed_up(0.5))
    case.averages.append(average)
    before = case.weights()
    case.update()
    assert average.steps == 2
    assert any(not torch.equal(value, before[name]) for name, value in average.average.items())
    # It follows the step that was just made: its first move takes the weights after step 1.
    first = Case(tiny_folder)
    first.averages.append(one := EMA(first.parameters, lambda _: 0.0))
    first.update()
    assert all(torch.equal(one.average[name], value) for name, value in first.weights().items())


def test_same_update_twice_is_the_same_to_the_bit(tiny_folder: Path) -> None:
    first, second = (Case(tiny_folder) for _ in range(2))
    assert first.update().means() == second.update().means()
    again = second.weights()
    assert all(torch.equal(value, again[name]) for name, value in first.weights().items())
