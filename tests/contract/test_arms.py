"""What every registered arm and every shipped arm file owes the trainer."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from bpgo import registry, seeding
from bpgo.core.advantage import group_advantage
from bpgo.core.arm import Arm
from bpgo.core.loss import ratio
from bpgo.core.sde import log_prob, transition
from bpgo.errors import UserError
from bpgo.records import Calibration, GroupRewards
from bpgo.storage.files import repository_root

FILES = sorted((repository_root() / "config" / "arms").glob("*.yaml"))
PROMPTS = [f"p{i}" for i in range(5)]
TERMS_OFF = {"alpha": 0.0, "varsigma": 0.0}


def _arm(file: Path, **changes) -> Arm:
    values = {**yaml.safe_load(file.read_text(encoding="utf-8")), **changes}
    arm_class = registry.load_arm_class(values["algorithm"])
    return arm_class(arm_class.Settings.model_validate(values))


def _groups(seed: int = 0) -> GroupRewards:
    rewards = 2 * torch.randn(5, 12, generator=torch.Generator().manual_seed(seed)) + 0.3
    means = {prompt: 0.1 * i for i, prompt in enumerate(PROMPTS)}
    return GroupRewards(rewards, PROMPTS, Calibration(0.3, 2.0, -6.0, means))


def _same(left, right) -> bool:
    return len(left.terms) == len(right.terms) and all(
        a.weight == b.weight and torch.equal(a.advantage, b.advantage)
        for a, b in zip(left.terms, right.terms, strict=True)
    )


@pytest.fixture(params=FILES, ids=lambda file: file.stem)
def file(request: pytest.FixtureRequest) -> Path:
    return request.param


def test_every_algorithm_has_a_file() -> None:
    named = {yaml.safe_load(file.read_text(encoding="utf-8"))["algorithm"] for file in FILES}
    assert named == set(registry.ARMS)


def test_an_unknown_algorithm_is_named() -> None:
    with pytest.raises(UserError, match=r"'grpoo' is not registered. Did you mean 'grpo'"):
        registry.load_arm_class("grpoo")


def test_settings_need_no_torch() -> None:
    code = (
        "import sys\n"
        "from bpgo import registry\n"
        "for name in registry.ARMS: registry.load_arm_class(name).Settings.model_json_schema()\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=repository_root())


def test_settings_survive_the_way_through_json(file: Path) -> None:
    chosen = _arm(file).settings
    dumped = json.loads(json.dumps(chosen.model_dump(mode="json")))
    assert type(chosen).model_validate(dumped) == chosen


def test_every_line_of_a_file_has_its_source(file: Path) -> None:
    group = ("  ", "advantage:")
    for line in file.read_text(encoding="utf-8").splitlines():
        key = line.split(":")[0]
        if line.startswith("#") or not line.strip() or line.strip().startswith("#"):
            continue
        if key in ("algorithm", "title", "source") or line.startswith(group):
            continue
        assert "#" in line, f"{file.name}: '{key}' says nowhere where its value comes from"


def test_advantages(file: Path) -> None:
    result = _arm(file).advantages(_groups(), seeding.generator(0))
    assert result.terms
    for term in result.terms:
        assert term.weight > 0
        assert term.advantage.shape == (5, 12)
        assert term.advantage.dtype == torch.float32
        assert term.advantage.isfinite().all()
    assert all(column.shape == (5,) for column in result.group_columns.values())
    json.dumps(result.scalars)


def test_rewards_are_left_alone(file: Path) -> None:
    groups = _groups()
    before = groups.rewards.clone()
    _arm(file).advantages(groups, seeding.generator(0))
    assert torch.equal(groups.rewards, before)


def test_equal_seeds_give_equal_answers(file: Path) -> None:
    first, second = _arm(file), _arm(file)
    for step in range(3):
        left = first.advantages(_groups(step), seeding.generator(step))
        right = second.advantages(_groups(step), seeding.generator(step))
        assert _same(left, right)
        stochastic = list(range(7))
        left_steps = first.trained_steps(stochastic, 60, seeding.generator(step))
        assert torch.equal(
            left_steps, second.trained_steps(stochastic, 60, seeding.generator(step))
        )
        assert left_steps.shape == (60, 4)  # equal cost for all arms


def test_state_continues_to_the_bit(file: Path) -> None:
    whole, first, second = _arm(file), _arm(file), _arm(file)
    for step in range(3):
        whole.advantages(_groups(step), seeding.generator(step))
        first.advantages(_groups(step), seeding.generator(step))
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    left = whole.advantages(_groups(3), seeding.generator(3))
    assert _same(left, second.advantages(_groups(3), seeding.generator(3)))


def test_with_its_terms_off_a_bpgo_arm_is_grpo_to_the_bit(file: Path) -> None:
    if yaml.safe_load(file.read_text(encoding="utf-8"))["algorithm"] != "bpgo":
        pytest.skip("has no special term")
    arm, grpo = _arm(file, **TERMS_OFF), _arm(file.with_name("grpo.yaml"))
    for step in range(3):
        ours = arm.advantages(_groups(step), seeding.generator(step))
        assert _same(ours, grpo.advantages(_groups(step), seeding.generator(step)))
    shared = set(type(grpo.settings).model_fields) - {"algorithm", "title", "source"}
    for key in shared:
        assert getattr(arm.settings, key) == getattr(grpo.settings, key), key


def test_first_ratio_is_exactly_one_and_pulls_along_the_advantage(file: Path) -> None:
    arm = _arm(file)
    kernel, eta = arm.settings.kernel, arm.settings.noise_level
    draw = torch.randn(3, 60, 4, 8, generator=torch.Generator().manual_seed(0))
    velocity, latents, noise = draw
    velocity.requires_grad_()
    with torch.no_grad():
        moved = transition(kernel, velocity, latents, 0.8, 0.7, eta)
        sample = moved.sample(noise)
        old = log_prob(sample, moved.mean, moved.std)
    moved = transition(kernel, velocity, latents, 0.8, 0.7, eta)
    found = ratio(log_prob(sample, moved.mean, moved.std), old)
    assert torch.equal(found.detach(), torch.ones(60))
    advantage = torch.linspace(-2, 2, 60)
    arm.surrogate(found, advantage).mean().backward()
    assert velocity.grad.isfinite().all()
    towards = log_prob(sample, moved.mean, moved.std).detach()
    with torch.no_grad():
        changed = transition(kernel, velocity - 1e-2 * velocity.grad, latents, 0.8, 0.7, eta)
        gain = log_prob(sample, changed.mean, changed.std) - towards
    assert (gain * advantage).sum() > 0


def test_constant_groups_carry_no_advantage(file: Path) -> None:
    rewards = torch.full((5, 12), 0.7)
    groups = GroupRewards(rewards, PROMPTS, _groups().calibration)
    for term in _arm(file).advantages(groups, seeding.generator(0)).terms:
        assert not term.advantage.any()


def test_plain_arms_return_their_preset(file: Path) -> None:
    arm = _arm(file)
    if arm.settings.algorithm == "bpgo":
        pytest.skip("has terms of its own")
    (term,) = arm.advantages(_groups(), seeding.generator(0)).terms
    assert torch.equal(term.advantage, group_advantage(_groups().rewards, arm.settings.advantage))
