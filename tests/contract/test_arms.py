"""What every registered arm and every shipped arm file owes the trainer."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from copy import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from shipped_arms import FILES, NAMES, SIZES, groups_for, make_arm, plan_of, values_of
from tiny_world import make_trainer, redness, same, weights
from torch import Tensor

from bpgo import registry, seeding
from bpgo.core.advantage import AdvantageSettings, group_advantage
from bpgo.core.arm import Arm
from bpgo.core.rollout import step_log_prob
from bpgo.core.seen import Seen, StepLoss
from bpgo.core.trainer import Trainer
from bpgo.errors import UserError
from bpgo.records import AdvantageResult, Samples
from bpgo.run.progress import read_lines
from bpgo.storage.files import repository_root

TERMS_OFF = {"alpha": 0.0, "varsigma": 0.0}
NO_VALUE = ("algorithm", "title", "source")  # what an arm is called
GROUPED = "  "  # a key below another, which says where both come from


def same_result(left: AdvantageResult, right: AdvantageResult) -> bool:
    return len(left.terms) == len(right.terms) and all(
        a.weight == b.weight and torch.equal(a.advantage, b.advantage)
        for a, b in zip(left.terms, right.terms, strict=True)
    )


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_every_algorithm_has_a_file() -> None:
    assert {values_of(name)["algorithm"] for name in NAMES} == set(registry.ARMS)


def test_an_unknown_algorithm_is_named() -> None:
    with pytest.raises(UserError, match=r"'grpoo' is not registered. Did you mean 'grpo'"):
        registry.load_arm_class("grpoo")


def test_settings_and_passes_need_no_torch() -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from bpgo import registry\n"
        "from bpgo.config.resolve import load_arm\n"
        "from bpgo.config.settings import RolloutSettings\n"
        "sizes = RolloutSettings(prompts_per_iteration=5, group_size=12, steps=8)\n"
        "for file in Path('config/arms').glob('*.yaml'):\n"
        "    arm = load_arm(file.stem, Path('config'))\n"
        "    kind = registry.load_arm_class(arm.algorithm)\n"
        "    kind.Settings.model_json_schema()\n"
        "    kind(arm).passes(sizes)\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=repository_root())


def test_settings_survive_the_way_through_json(name: str) -> None:
    chosen = make_arm(values_of(name)).settings
    dumped = json.loads(json.dumps(chosen.model_dump(mode="json")))
    assert type(chosen).model_validate(dumped) == chosen


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_line_of_a_file_has_its_source(file: Path) -> None:
    lines = file.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        key = line.split(":")[0]
        if line.startswith("#") or not line.strip() or line.strip().startswith("#"):
            continue
        below = lines[number + 1] if number + 1 < len(lines) else ""
        if key in NO_VALUE or line.startswith(GROUPED) or below.startswith(GROUPED):
            continue
        assert "#" in line, f"{file.name}: '{key}' says nowhere where its value comes from"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_file_states_only_how_it_differs(file: Path) -> None:
    """No key that its base has with the same value: one truth stands in one place.

    Null is one: it keeps out what a configuration's overrides give the base.
    """
    values = yaml.safe_load(file.read_text(encoding="utf-8"))
    if "base" not in values:
        return
    base = yaml.safe_load(file.with_name(f"{values['base']}.yaml").read_text(encoding="utf-8"))
    for key, value in values.items():
        assert key in NO_VALUE or value is None or base.get(key, ...) != value, key
        for inner in value if isinstance(value, dict) and isinstance(base.get(key), dict) else ():
            assert base[key].get(inner, ...) != value[inner], f"{key}.{inner}"


def test_advantages(name: str) -> None:
    arm = make_arm(values_of(name))
    result = arm.advantages(groups_for(arm), seeding.generator(0))
    assert result.terms
    shape = (SIZES.prompts_per_iteration, SIZES.group_size)
    for term in result.terms:
        assert term.weight > 0
        expected = {"sample": shape, "step": (*shape, SIZES.steps)}
        assert term.advantage.shape[:2] == shape
        assert term.over == "site" or term.advantage.shape == expected[term.over]
        assert term.advantage.dtype == torch.float32
        assert term.advantage.isfinite().all()
        assert term.scale is None or term.scale.shape == shape
    assert all(column.shape == shape[:1] for column in result.group_columns.values())
    json.dumps(result.scalars)


def test_rewards_are_left_alone(name: str) -> None:
    arm = make_arm(values_of(name))
    groups = groups_for(arm)
    before = groups.rewards.clone()
    arm.advantages(groups, seeding.generator(0))
    assert torch.equal(groups.rewards, before)


def test_equal_seeds_give_equal_answers(name: str) -> None:
    first, second = (make_arm(values_of(name)) for _ in range(2))
    for step in range(1, 4):
        left = first.advantages(groups_for(first, step), seeding.generator(step))
        right = second.advantages(groups_for(second, step), seeding.generator(step))
        assert same_result(left, right)
        for one, two in zip(
            vars(plan_of(first, step)).values(), vars(plan_of(second, step)).values(), strict=True
        ):
            assert torch.equal(one, two) if isinstance(one, Tensor) else one == two


def test_a_plan_trains_what_the_arm_says(name: str) -> None:
    """As many steps of each sample as it counts, each once, and none without noise."""
    arm = make_arm(values_of(name))
    arm.check(SIZES)
    plan, batch = plan_of(arm), SIZES.prompts_per_iteration * SIZES.group_size
    assert plan.trained.shape == (batch, arm.passes(SIZES).trained)
    assert plan.stochastic.shape == (batch, SIZES.steps)
    assert plan.noise_of.shape == (batch, SIZES.steps + 1)
    assert set(plan.noise_of.flatten().tolist()) <= set(range(SIZES.group_size))
    for steps, noisy in zip(plan.trained.tolist(), plan.stochastic, strict=True):
        assert len(set(steps)) == len(steps)
        assert arm.noised_again or all(noisy[steps])
    tail = SIZES.steps - SIZES.deterministic_tail
    assert not plan.stochastic[:, tail:].any()


def test_state_continues_to_the_bit(name: str) -> None:
    whole, first, second = (make_arm(values_of(name)) for _ in range(3))
    for step in range(3):
        whole.advantages(groups_for(whole, step), seeding.generator(step))
        first.advantages(groups_for(first, step), seeding.generator(step))
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    left = whole.advantages(groups_for(whole, 3), seeding.generator(3))
    assert same_result(left, second.advantages(groups_for(second, 3), seeding.generator(3)))


def test_with_its_terms_off_a_bpgo_arm_is_grpo_to_the_bit(name: str) -> None:
    values = values_of(name)
    if (values["trust"] or {}).get("rule") != "bpgo":
        pytest.skip("carries another rule, or none")
    arm = make_arm(values_of(name, trust=TERMS_OFF))
    plain = make_arm({**values, "trust": None})
    for step in range(3):
        ours = arm.advantages(groups_for(arm, step), seeding.generator(step))
        assert same_result(ours, plain.advantages(groups_for(plain, step), seeding.generator(step)))


@pytest.mark.parametrize("bpgo", [name for name in NAMES if name.startswith("bpgo")])
def test_a_bpgo_arm_has_the_values_of_grpo(bpgo: str) -> None:
    rest = dict.fromkeys((*NO_VALUE, "trust"))
    assert {**values_of(bpgo), **rest} == {**values_of("grpo"), **rest}


def test_constant_groups_carry_no_advantage(name: str) -> None:
    if name == "random_reward":
        pytest.skip("its rewards are drawn")
    arm = make_arm(values_of(name))
    rewards = torch.full((SIZES.prompts_per_iteration, SIZES.group_size), 0.7)
    for term in arm.advantages(groups_for(arm, 0, rewards), seeding.generator(0)).terms:
        assert not term.advantage.any()


def test_an_advantage_of_each_sample_is_the_groups_own(name: str) -> None:
    """Without a trust rule, and where the algorithm has no advantage of its own: Eq. 1."""
    arm = make_arm({**values_of(name), "trust": None})
    if type(arm).advantage is not Arm.advantage:
        pytest.skip("has an advantage of its own; its own tests hold it")
    groups = groups_for(arm)
    (term,) = arm.advantages(groups, seeding.generator(0)).terms
    chosen: AdvantageSettings = arm.settings.advantage
    assert torch.equal(term.advantage, group_advantage(groups.rewards, chosen))


def greenness(samples: Samples) -> Tensor:
    """A truth that some arms read; neither the reward nor its contrary."""
    return samples.pixels[:, 1].mean(dim=(1, 2))


def training(name: str, folder: Path, output: Path, **options: Any) -> Trainer:
    return make_trainer(
        folder,
        output,
        arm="arm",
        arm_values=values_of(name),
        rollout={"group_size": 12, "steps": 8, "batch_size": 24},
        diagnostics={"red": redness, "oracle": greenness},
        **options,
    )


def test_it_trains_with_first_ratios_of_exactly_one(
    name: str, tiny_folder: Path, tmp_path: Path
) -> None:
    """And each optimizer step of the first iteration pulls along the advantage."""
    trainer = training(name, tiny_folder, tmp_path, training={"iterations": 2})
    arm, first = trainer.arm, {k: v.clone() for k, v in weights(trainer).items()}
    gains: list[float] = []
    loss = arm.loss

    def watch(seen: Seen, advantage: Tensor) -> StepLoss:
        found = loss(seen, advantage)
        if found.ratio is not None and advantage.any():
            (slope,) = torch.autograd.grad(found.rows.mean(), seen.velocity, retain_graph=True)
            moved = seen.velocity.detach() - 1e-3 * slope / slope.abs().max()
            gains.append(float((log_prob_gain(seen, moved, found) * advantage).sum()))
        return found

    def log_prob_gain(seen: Seen, moved: Tensor, found: StepLoss) -> Tensor:
        """How much likelier another velocity makes each row: by the step, or as the loss has it."""
        if arm.noised_again:
            other = copy(seen)
            other.velocity = moved
            ratio = loss(other, torch.zeros(len(seen))).ratio
            assert ratio is not None
            assert found.ratio is not None
            return (ratio / found.ratio).log().detach()
        with torch.no_grad():
            steps = seen._transition_of(seen, moved), seen.step
            given, channel = (arm.kernel, seen.next_latents), seen._rollout.channel
            new, old = (step_log_prob(*given, step, channel) for step in steps)
            return new - old

    arm.loss = watch  # type: ignore[method-assign]
    trainer.run()
    assert not same(first, weights(trainer))
    assert bool(gains) == arm.has_ratio
    assert all(gain > 0 for gain in gains)
    for entry in read_lines(tmp_path / "metrics.jsonl"):
        assert entry["ratio_deviation"] == 0.0
        assert all(math.isfinite(value) for value in entry.values())


def test_it_resumes_to_the_bit(name: str, tiny_folder: Path, tmp_path: Path) -> None:
    options = {"training": {"iterations": 3, "checkpoint_every": 1, "snapshot_every": 3}}
    whole = training(name, tiny_folder, tmp_path / "whole", **options)
    whole.run()
    part = training(name, tiny_folder, tmp_path / "part", **options)
    keep = part._keep

    def stop_after_two(iteration: int, logs: Any) -> None:
        keep(iteration, logs)
        if iteration == 2:
            raise KeyboardInterrupt

    part._keep = stop_after_two  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        part.run()
    resumed = training(name, tiny_folder, tmp_path / "part", **options)
    resumed.run()
    assert same(weights(resumed), weights(whole))
    for key, average in whole.averages.items():
        assert same(resumed.averages[key].average, average.average)
        assert resumed.averages[key].steps == average.steps
    rows = [(tmp_path / part / "rollouts.jsonl").read_text() for part in ("whole", "part")]
    assert rows[0] == rows[1]


CARRIERS = ["grpo", "dance_grpo", "flow_grpo", "grpo_guard", "mix_grpo", "branch_grpo", "flow_dppo"]
CARRIERS += ["tempflow_grpo", "flash_grpo", "pref_grpo", "vipo"]
FORWARD_CARRIERS = ["diffusion_nft", "awm", "dgpo", "crd"]


@pytest.mark.parametrize("rule", ["bpgo", "bpgo_ras", "bpgo_released"])
@pytest.mark.parametrize("carrier", [*CARRIERS, *FORWARD_CARRIERS])
def test_any_arm_with_group_advantages_carries_bpgo(
    carrier: str, rule: str, tiny_folder: Path, tmp_path: Path
) -> None:
    """From its file's name alone; the run differs from the arm without it."""
    carried = values_of(f"bpgo{rule.removeprefix('bpgo')}")["trust"]
    options: dict[str, Any] = {
        "arm": "arm",
        "rollout": {"group_size": 12, "steps": 8, "batch_size": 24},
        "training": {"iterations": 1, "snapshot_every": 1, "checkpoint_every": 1},
    }
    found = []
    for trust in (None, carried):
        values = {**values_of(carrier), "trust": trust}
        output = tmp_path / ("plain" if trust is None else "trusted")
        trainer = make_trainer(tiny_folder, output, arm_values=values, **options)
        trainer.run()
        assert read_lines(output / "metrics.jsonl")[0]["ratio_deviation"] == 0.0
        found.append({key: value.clone() for key, value in weights(trainer).items()})
    assert not same(*found)
    row = read_lines(tmp_path / "trusted" / "rollouts.jsonl")[0]
    assert len(row["groups"]["weight"]) == 2
