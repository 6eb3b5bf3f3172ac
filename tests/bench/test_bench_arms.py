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
from bpgo.core.trainer import Trainer
from bpgo.errors import UserError
from bpgo.records import Passes
from bpgo.tools.bench import arms as module
from bpgo.tools.bench.arms import (
    Costs,
    Measured,
    arm_figures,
    costs_of,
    settings_by_arm,
)
from bpgo.tools.bench.iteration import passes_made
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


def test_the_prediction_counts_passes() -> None:
    """A sample of 6 steps: grpo trains 2; DiffusionNFT trains 5, with two other policies."""
    costs = Costs(forward=0.001, trained=0.003, rest=0.1)
    found, _ = settings_by_arm(DEFAULT, "ambiguous", "grpo", ["diffusion_nft"])
    settings = found["diffusion_nft"]
    assert arm_work(settings, "grpo") == (6, 2)
    assert arm_work(settings, "diffusion_nft") == (6 + 10, 5)
    assert with_guidance(settings, Passes(700, 300, 10)) == (710, 300)
    assert costs.iteration(710, 300) == pytest.approx(0.1 + 0.71 + 0.9)


def test_costs_are_medians_for_each_row() -> None:
    def iteration(total: float, forward: float, trained: float) -> dict[str, Seconds]:
        seconds = {
            "total": total,
            "forward": forward,
            "forward and backward": trained,
            "transformer": forward + trained,
        }
        return {name: Seconds(wall=99.0, cpu=value) for name, value in seconds.items()}

    rows = [{"forward": 10, "forward and backward": 5}] * 2
    rows += [{"forward": 10, "forward and backward": 0}]  # every group was dropped
    given = [iteration(10, 2, 3), iteration(11, 3, 4), iteration(90, 40, 0)]
    settings = settings_by_arm(DEFAULT, "ambiguous", "grpo", ["grpo"])[0]["grpo"]

    def costs(others: int) -> Costs:
        made = Passes(10, 5, others), Passes(0, 0)
        measured = [
            Measured((each, each), made, count) for each, count in zip(given, rows, strict=True)
        ]
        return costs_of(measured, settings, "cpu")

    assert costs(0) == Costs(forward=0.3, trained=0.6, rest=5.0)
    # Four passes more were another model's: 1.2 seconds of each iteration.
    assert costs(4).rest == pytest.approx(5.0 - 4 * 0.3)


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


def test_calls_are_the_passes_that_are_predicted(tiny: Path, tmp_path: Path) -> None:
    """What the transformer is asked for, row by row, is what the metrics say.

    The base policy is another model, of which nothing is replayed. Passes of fewer than eight rows,
    which would round differently, are filled up.
    """
    for name, without in (("grpo", 0), ("flow_grpo", 2), ("diffusion_nft", 3)):
        trainer = trainer_of(tiny, tmp_path, name)
        instrument = module.Instrument(trainer)
        instrument.iterate(1, replay=True)
        made = passes_made(instrument.entry)
        forwards, trained = with_guidance(trainer.settings, made)
        replayed = {"forward": forwards - 8 * without, "forward and backward": trained}
        for kind, rows in replayed.items():
            assert rows <= instrument.rows[kind] <= rows + 12


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
