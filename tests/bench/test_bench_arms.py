"""Every arm beside the reference arm: who takes part, what is predicted, what is reported."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from shipped_arms import values_of
from tiny_world import make_trainer

from bpgo.config import resolve as config
from bpgo.core.layout import FEWEST_ROWS
from bpgo.core.trainer import Trainer
from bpgo.errors import UserError
from bpgo.records import Passes
from bpgo.tools.bench import arms as module
from bpgo.tools.bench.arms import (
    Cost,
    Costs,
    Measured,
    arm_figures,
    costs_of,
    settings_by_arm,
)
from bpgo.tools.bench.iteration import REPLAYED, Calls, passes_made
from bpgo.tools.bench.measure import Seconds
from bpgo.tools.bench.report import markdown
from bpgo.tools.planning.work import arm_passes, arm_work, with_guidance

DEFAULT = config.default_configfile()


def trainer_of(tiny: Path, output: Path, arm: str) -> Trainer:
    values = {"arm_values": values_of(arm)} if arm == "diffusion_nft" else {}
    return make_trainer(tiny, output / arm, arm=arm, **values)


@pytest.mark.parametrize("reference", ["grpo", "flow_grpo"])
def test_every_shipped_arm_but_the_reference(reference: str) -> None:
    found, left_out = settings_by_arm(DEFAULT, "ambiguous", reference, None)
    files = {file.stem for file in (DEFAULT.parent / "arms").glob("*.yaml")}
    assert set(found) | set(left_out) == files - {reference}
    assert list(left_out) == ["gdpo"]  # the first experiment has one reward
    assert "name a weighted_sum of two or more" in left_out["gdpo"]
    default = config.load(DEFAULT)
    for name, settings in found.items():
        assert set(settings.arms) == {reference, name}
        assert settings.rollout == default.rollout
        assert settings.training == default.training
        (experiment,) = settings.experiments.values()
        assert experiment.training_reward == default.experiments["ambiguous"].training_reward


def test_an_arm_that_does_not_fit_is_left_out_or_refused(tmp_path: Path) -> None:
    """A tree of 12 leaves and a group of 8; a rule that reads a diagnostic that is not there."""
    values = config.read_yaml(DEFAULT)
    values["rollout"]["group_size"] = 8
    values["overrides"] = {
        "arms": {"bpgo_crt": {"trust": {"base": "true_reliability", "reward": "oracle_strict"}}}
    }
    folder = tmp_path / "config"
    for kind in ("arms", "features", "models", "prompts", "rewards", "trust"):
        (folder / kind).mkdir(parents=True)
        for file in (DEFAULT.parent / kind).glob("*.yaml"):
            (folder / kind / file.name).write_text(file.read_text())
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(values))
    found, left_out = settings_by_arm(file, "ambiguous", "grpo", None)
    assert set(left_out) == {"branch_grpo", "bpgo_crt", "gdpo", "tempflow_grpo"}
    assert "group_size" in left_out["branch_grpo"]
    assert "group_size" in left_out["tempflow_grpo"]
    assert "oracle_strict" in left_out["bpgo_crt"]
    assert not any("\n" in why for why in left_out.values())
    assert "bpgo" in found
    with pytest.raises(UserError, match="branch_grpo"):
        settings_by_arm(file, "ambiguous", "grpo", ["bpgo", "branch_grpo"])


def test_chosen_arms() -> None:
    found, left_out = settings_by_arm(DEFAULT, "ambiguous", "grpo", ["mix_grpo", "grpo"])
    assert (list(found), left_out) == (["mix_grpo", "grpo"], {})
    with pytest.raises(UserError, match=r"--arms: 'mixgrpo' is unknown\..*'mix_grpo'"):
        settings_by_arm(DEFAULT, "ambiguous", "grpo", ["mixgrpo"])
    assert settings_by_arm(DEFAULT, "ambiguous", "grpo", []) == ({}, {})


FORWARD, TRAINED = REPLAYED


def test_the_prediction_counts_calls_and_their_rows() -> None:
    costs = Costs({FORWARD: Cost(0.01, 0.001), TRAINED: Cost(0.02, 0.003)}, rest=0.1)
    made = {FORWARD: Calls(6, 710), TRAINED: Calls(2, 300)}
    assert costs.iteration(made) == pytest.approx(0.1 + 0.06 + 0.71 + 0.04 + 0.9)


def test_passes_are_those_that_arms_ask_for() -> None:
    """A sample of 6 steps: grpo trains 2; DiffusionNFT trains 5, with two other policies."""
    found, _ = settings_by_arm(DEFAULT, "ambiguous", "grpo", ["diffusion_nft"])
    settings = found["diffusion_nft"]
    assert arm_work(settings, "grpo") == (6, 2)
    assert arm_work(settings, "diffusion_nft") == (6 + 10, 5)
    assert with_guidance(settings, Passes(700, 300, 10)) == (710, 300)


def measured(made: dict[str, Calls], costs: Costs, small: int) -> Measured:
    """An iteration of the reference arm on a machine of these costs."""
    seconds = {kind: costs.calls[kind].of(each) for kind, each in made.items()}
    seconds["transformer"] = sum(seconds.values())
    seconds["total"] = seconds["transformer"] + costs.rest
    each = {name: Seconds(wall=99.0, cpu=value) for name, value in seconds.items()}
    few = {
        kind: (Seconds(cpu=costs.calls[kind].of(Calls(1, small))), Calls(1, small))
        for kind in REPLAYED
    }
    return Measured((each, each), (made, made), Passes(0, 0), few)


def test_costs_are_those_of_the_machine() -> None:
    costs = Costs({FORWARD: Cost(0.5, 0.2), TRAINED: Cost(1.0, 0.3)}, rest=5.0)
    dear = Costs({FORWARD: Cost(9.0, 9.0), TRAINED: Cost(9.0, 9.0)}, rest=99.0)
    made = [{FORWARD: Calls(2, 100 + k), TRAINED: Calls(k, 50 * k)} for k in (0, 1, 2)]
    given = [measured(each, costs, 8) for each in made] + [measured(made[1], dear, 8)]
    found = costs_of(given, "cpu")  # medians: one iteration was slow, one dropped every group
    assert found.rest == pytest.approx(5.0)
    for kind in REPLAYED:
        assert found.calls[kind].call == pytest.approx(costs.calls[kind].call)
        assert found.calls[kind].row == pytest.approx(costs.calls[kind].row)


def test_where_every_call_is_small_a_row_has_its_share_of_the_call() -> None:
    costs = Costs({FORWARD: Cost(0.4, 0.1), TRAINED: Cost(0.0, 0.0)}, rest=1.0)
    found = costs_of([measured({FORWARD: Calls(3, 24), TRAINED: Calls()}, costs, 8)], "cpu")
    assert found.calls[FORWARD] == Cost(0.0, pytest.approx(0.15))
    assert found.calls[TRAINED] == Cost(0.0, 0.0)


def test_arms_take_turns_beside_the_reference(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    real = module.Instrument.iterate

    def watched(self: Any, iteration: int, replay: bool = False) -> Any:
        order.append(f"{self.trainer.output.name} {iteration}")
        return real(self, iteration, replay)

    monkeypatch.setattr(module.Instrument, "iterate", watched)
    arms = {name: trainer_of(tiny, tmp_path, name) for name in ("bpgo", "diffusion_nft")}
    reference = trainer_of(tiny, tmp_path, "grpo")
    found = arm_figures(reference, arms, 2)
    turns = [each for each in order if not each.endswith(" 1")]  # the first warms up
    assert turns == [
        *("grpo 2", "bpgo 2", "grpo 2", "diffusion_nft 2"),
        *("bpgo 3", "grpo 3", "diffusion_nft 3", "grpo 3"),
    ]
    assert list(found) == ["bpgo", "diffusion_nft"]
    for name, figures in found.items():
        assert figures["passes"] == asdict(arm_passes(arms[name].settings, name))
        assert figures["measured"]["n"] == 2
        assert figures["measured_over_predicted"]["median"] > 0
        assert figures["passes_made"]["rollout"] <= figures["passes"]["rollout"]
    assert found["bpgo"]["passes_made"]["rollout"] == 3.25  # the start of four samples is one
    assert found["diffusion_nft"]["predicted"] > 1


def test_calls_are_the_passes_that_the_metrics_say(tiny: Path, tmp_path: Path) -> None:
    """Row by row, the base policy's too, which is another model.

    Passes of fewer than eight rows, which would round differently, are filled up.
    """
    for name in ("grpo", "flow_grpo", "diffusion_nft"):
        trainer = trainer_of(tiny, tmp_path, name)
        instrument = module.Instrument(trainer)
        instrument.iterate(1, replay=True)
        forwards, trained = with_guidance(trainer.settings, passes_made(instrument.entry))
        for kind, rows in {FORWARD: forwards, TRAINED: trained}.items():
            made = instrument.made[kind]
            assert rows <= made.rows < rows + FEWEST_ROWS * made.number
        for _, calls in instrument.small_call().values():
            assert calls == Calls(1, FEWEST_ROWS)


def test_the_report_has_a_row_for_each_arm(found: tuple[dict[str, Any], Path]) -> None:
    figures, output = found
    text = (output / "bench.md").read_text()
    assert list(figures["arms"]) == ["flow_grpo", "dance_grpo"]
    assert "## Arms beside `grpo`" in text
    for name, arm in figures["arms"].items():
        (line,) = [row for row in text.splitlines() if row.startswith(f"| `{name}` | ")]
        numbers = " + ".join(str(arm["passes"][kind]) for kind in ("rollout", "trained", "others"))
        assert numbers in line
        assert f"{arm['predicted']:.3f}" in line
    changed = figures | {"arms_left_out": {"branch_grpo": "arms.branch_grpo: too many leaves"}}
    assert "- `branch_grpo` is left out. arms.branch_grpo: too many leaves" in markdown(changed)
