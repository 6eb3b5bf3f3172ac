"""What every registered trust rule and every shipped rule file owes the arm that carries it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, get_args

import pytest
import torch
from tiny_world import make_trainer, redness, same, weights

from bpgo import registry, seeding
from bpgo.config import resolve as config
from bpgo.core.trainer import Trainer
from bpgo.core.trust import Effect, Reads, Trust, Trusted, make_trust
from bpgo.errors import UserError
from bpgo.records import Calibration, GroupRewards, Samples
from bpgo.storage.files import repository_root

CONFIG = repository_root() / "config"
FILES = sorted((CONFIG / "trust").glob("*.yaml"))
PROMPTS = [f"p{i}" for i in range(5)]


def _rule(file: Path) -> Trust:
    return make_trust(config.load_trust(file.stem, CONFIG))


def _groups(seed: int = 0) -> GroupRewards:
    """Groups that have all that any rule may read."""
    draws = torch.randn(4, 5, 12, generator=torch.Generator().manual_seed(seed))
    parts = {"a": draws[0] + draws[2], "b": draws[1] + draws[2]}
    means = {prompt: 0.1 * i for i, prompt in enumerate(PROMPTS)}
    return GroupRewards(
        0.5 * parts["a"] + 0.5 * parts["b"],
        PROMPTS,
        Calibration(0.3, 2.0, -6.0, means),
        parts=parts,
        part_weights={"a": 0.5, "b": 0.5},
        ambiguity=torch.tensor([0.0, 0.2, 0.5, 1.0, float("nan")]),
        reference={"oracle": draws[2] + draws[3]},
    )


def _tensors(answer: Trusted) -> list[torch.Tensor]:
    found = [answer.weights, answer.rewards, answer.gate, *answer.columns.values()]
    found += [part for term in answer.terms for part in (term.rewards, term.scale)]
    return [tensor for tensor in found if tensor is not None]


def _same(left: Trusted, right: Trusted) -> bool:
    pairs = zip(_tensors(left), _tensors(right), strict=True)
    return left.scalars == right.scalars and all(
        torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in pairs
    )


@pytest.fixture(params=FILES, ids=lambda file: file.stem)
def file(request: pytest.FixtureRequest) -> Path:
    return request.param


def test_every_rule_has_a_file() -> None:
    assert {config.load_trust(file.stem, CONFIG).rule for file in FILES} == set(registry.TRUST)


def test_an_unknown_rule_is_named() -> None:
    with pytest.raises(UserError, match=r"trust rule 'bgpo' is not registered. Did you mean 'bpgo"):
        registry.load_trust_class("bgpo")


def test_settings_need_no_torch() -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from bpgo.config import resolve as config; from bpgo import registry\n"
        "for name in registry.TRUST:\n"
        "    registry.load_trust_class(name).Settings.model_json_schema()\n"
        "for file in Path('config/trust').glob('*.yaml'):\n"
        "    config.load_trust(file.stem, 'config')\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=repository_root())


def test_settings_survive_the_way_through_json(file: Path) -> None:
    chosen = config.load_trust(file.stem, CONFIG)
    dumped = json.loads(json.dumps(chosen.model_dump(mode="json")))
    again = type(chosen).model_validate(dumped)
    assert again == chosen
    assert again.model_dump(mode="json") == dumped


def test_every_line_of_a_file_has_its_source(file: Path) -> None:
    for line in file.read_text(encoding="utf-8").splitlines():
        key = line.split(":")[0]
        if line.startswith("#") or not line.strip() or line.strip().startswith("#"):
            continue
        assert key == "rule" or "#" in line, f"{file.name}: '{key}' does not say where it is from"


def test_an_answer_does_what_the_settings_say(file: Path) -> None:
    rule, groups = _rule(file), _groups()
    before = groups.rewards.clone()
    answer = rule.judge(groups, seeding.generator(0))
    effects, reads = rule.settings.effects(), rule.settings.reads()
    assert effects <= set(get_args(Effect))
    assert reads <= set(get_args(Reads))
    assert ("gate" in effects) == (answer.gate is not None)
    assert ("rewards" in effects) == (answer.rewards is not None or bool(answer.terms))
    if answer.weights is None:
        assert not effects & {"weights", "sample_weights"}
    else:
        assert answer.weights.shape == ((5, 12) if "sample_weights" in effects else (5,))
        assert (answer.weights >= 0).all()
        assert answer.columns["weight"].shape == (5,)
        if "weights" not in effects:
            assert (answer.weights == 1).all()
    for rewards in [answer.rewards, *(term.rewards for term in answer.terms)]:
        assert rewards is None or (rewards.shape == (5, 12) and rewards.isfinite().all())
    assert answer.gate is None or (answer.gate.shape == (5, 12) and answer.gate.dtype == torch.bool)
    assert all(column.shape == (5,) for column in answer.columns.values())
    json.dumps(answer.scalars)
    assert torch.equal(groups.rewards, before)


def test_what_a_rule_reads_it_asks_for_and_nothing_else(file: Path) -> None:
    rule, groups = _rule(file), _groups()
    without = {
        "members": replace(groups, parts={}, part_weights={}),
        "ambiguity": replace(groups, ambiguity=None),
        "reference": replace(groups, reference={}),
        "calibration": replace(groups, calibration=None),
    }
    for word in get_args(Reads):
        if word in rule.settings.reads():
            with pytest.raises(UserError):
                _rule(file).judge(without[word], seeding.generator(0))
        else:
            _rule(file).judge(without[word], seeding.generator(0))
    assert bool(rule.settings.reference_rewards()) == ("reference" in rule.settings.reads())


def test_equal_seeds_give_equal_answers(file: Path) -> None:
    first, second = _rule(file), _rule(file)
    for step in range(3):
        left, right = (
            rule.judge(_groups(step), seeding.generator(step)) for rule in (first, second)
        )
        assert _same(left, right)


def test_state_continues_to_the_bit(file: Path) -> None:
    whole, first, second = _rule(file), _rule(file), _rule(file)
    for step in range(3):
        whole.judge(_groups(step), seeding.generator(step))
        first.judge(_groups(step), seeding.generator(step))
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    left, right = (rule.judge(_groups(3), seeding.generator(3)) for rule in (whole, second))
    assert _same(left, right)
    assert second.state_dict() == whole.state_dict()


def test_groups_of_equal_rewards_do_no_harm(file: Path) -> None:
    if file.stem == "random_reward":
        pytest.skip("its rewards are drawn")
    flat = torch.full((5, 12), 0.7)
    groups = replace(
        _groups(), rewards=flat, parts={"a": flat, "b": flat}, reference={"oracle": flat}
    )
    answer = _rule(file).judge(groups, seeding.generator(0))
    assert answer.weights is None or answer.weights.isfinite().all()
    for rewards in [answer.rewards, *(term.rewards for term in answer.terms)]:
        if rewards is not None:
            assert (rewards == rewards[:, :1]).all()


class Sum:
    """A reward of two parts, as rules of an ensemble need it."""

    weights: ClassVar[dict[str, float]] = {"red": 0.5, "green": 0.5}

    def parts(self, samples: Samples) -> dict[str, torch.Tensor]:
        red, green, _ = samples.pixels.mean((2, 3)).unbind(1)
        return {"red": red, "green": green}

    def scaled(self, parts: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: 20 * value for name, value in parts.items()}

    def combine(self, parts: dict[str, torch.Tensor]) -> torch.Tensor:
        return 10 * parts["red"] + 10 * parts["green"]

    def __call__(self, samples: Samples) -> torch.Tensor:
        return self.combine(self.parts(samples))


def test_a_run_with_the_rule_resumes_to_the_bit(
    file: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    """GRPO with a KL term carries every rule; what a rule remembers is in the checkpoint."""
    trust = config.load_trust(file.stem, CONFIG).model_dump(mode="json")

    def trainer(output: Path, iterations: int) -> Trainer:
        made = make_trainer(
            tiny_folder,
            output,
            reward=Sum(),
            arm_changes={"kl_weight": 0.01, "trust": trust},
            training={"iterations": iterations, "checkpoint_every": 1, "snapshot_every": 1},
        )
        made.diagnostics = {"oracle": redness}
        return made

    whole = trainer(tmp_path / "whole", 3)
    whole.run()
    trainer(tmp_path / "parts", 2).run()
    resumed = trainer(tmp_path / "parts", 3)
    resumed.run()
    assert same(weights(resumed), weights(whole))
    assert resumed.arm.state_dict() == whole.arm.state_dict()
    rows = [(tmp_path / part / "rollouts.jsonl").read_text() for part in ("whole", "parts")]
    assert rows[0] == rows[1]
