"""A search of training settings is checked before any work; the shipped one says what it says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from bpgo.config.resolve import default_configfile
from bpgo.config.search import ANCHORS, SEARCH, load_search
from bpgo.errors import UserError
from bpgo.storage.files import write_text

Values = dict[str, Any]
CONFIG = default_configfile()


def searched(folder: Path, change: Callable[[Values], Any] = lambda _: None) -> Any:
    """The shipped search, changed."""
    values = yaml.safe_load((CONFIG.parent / SEARCH).read_text())
    values["candidates"] = {"few": {"rollout": {"steps": 6, "deterministic_tail": 4}}}
    change(values)
    path = folder / SEARCH
    write_text(path, yaml.safe_dump(values))
    return load_search(path, CONFIG)


def test_the_shipped_candidates_vary_one_thing_each() -> None:
    search = load_search(CONFIG.parent / SEARCH, CONFIG)
    told = {
        name: {
            **settings.rollout.model_dump(),
            **settings.training.model_dump(),
            **settings.arms["oracle_reward"].model_dump(),
        }
        for name, settings in search.settings.items()
    }
    base = told["few_noisy_steps"]
    differs = {
        name: {key: values[key] for key in values if values[key] != base[key]}
        for name, values in told.items()
        if name != "before"
    }
    assert differs == {
        "few_noisy_steps": {},
        "noise_0p6": {"noise_level": 0.6},
        "noise_1p6": {"noise_level": 1.6},
        "all_steps_noisy": {"stochastic_steps": None},
        "steps_8": {"steps": 8, "stochastic_steps": 3},
        "rate_5em5": {"learning_rate": 5e-5},
        "rate_2em4": {"learning_rate": 2e-4},
        "optimizer_steps_4": {"optimizer_steps": 4},
        "cps": {"kernel": "cps", "noise_level": 0.7},
    }
    assert all(values["ema_decay"] == 0.95 and values["ema_every"] == 1 for values in told.values())


def test_only_the_anchors_are_trained_with_tuning_seeds(tmp_path: Path) -> None:
    search = searched(tmp_path)
    settings = search.settings["few"]
    assert {(run.arm, run.seed) for run in settings.runs()} == {
        (arm, seed) for arm in ANCHORS for seed in search.sizes.seeds
    }
    assert settings.training.iterations == search.sizes.iterations
    assert settings.rollout.deterministic_tail == 4
    assert search.truth == "oracle"


def candidate(**values: Any) -> Callable[[Values], Any]:
    return lambda search: search["candidates"].update(mine=values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.update(sedes=[31]), "sedes: unknown key. Did you mean 'seeds'?"),
        (lambda v: v.update(seeds=[31, 1]), "seeds: 1 is a seed that the configuration reports"),
        (lambda v: v.update(seeds=[31, 31]), "holds a seed twice"),
        (lambda v: v.update(experiment="ambigous"), "Did you mean 'ambiguous'?"),
        (lambda v: v.update(evaluate_every=7), "evaluate_every: 7 does not divide iterations"),
        (lambda v: v.update(batches=2), "batches: 2 is not allowed"),
        (candidate(), "candidates.mine: changes nothing"),
        (candidate(rollout={}), "candidates.mine: changes nothing"),
        (candidate(rolout={"steps": 5}), "candidates.mine.rolout: unknown key. Did you mean"),
        (candidate(rollout={"stepz": 5}), "rollout.stepz: unknown key. Did you mean 'steps'?"),
        (candidate(training={"iterations": 5}), "changes nothing that can act: the search sets"),
        (candidate(rollout={"batch_size": 5}), "changes nothing that can act: no result depends"),
        (
            candidate(overrides={"arms": {"dance_grpo": {"noise_level": 0.5}}}),
            "changes nothing that can act: the anchors' training does not depend on 'dance_grpo':"
            " of arms it reads oracle_reward, grpo, random_reward",
        ),
        (
            candidate(overrides={"features": {"scenes": {"title": "x", "kind": "y"}}}),
            "changes nothing that can act",
        ),
        (
            candidate(overrides={"trust": {"true_reward": {"reward": "oracle_strict"}}}),
            "a candidate changes how the anchors train, not their rewards",
        ),
        (
            candidate(rollout={"steps": 6, "deterministic_tail": 4}),
            "candidates.mine: has the same settings as 'few'",
        ),
        (
            candidate(overrides={"arms": {"grpo": {"step_selection": "every"}}}),
            "step_selection: 'every' is not allowed",
        ),
    ],
)
def test_a_mistake_is_one_message(
    change: Callable[[Values], Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as caught:
        searched(tmp_path, change)
    [line] = str(caught.value).splitlines()
    assert str(tmp_path / SEARCH) in line
    assert message in line


def test_messages_name_the_line_and_empty_changes_are_refused(tmp_path: Path) -> None:
    def refusal(change: Callable[[Values], Any]) -> str:
        with pytest.raises(UserError) as caught:
            searched(tmp_path, change)
        return str(caught.value)

    message = refusal(lambda values: values["candidates"]["few"].update(banana=1))
    line = 1 + (tmp_path / SEARCH).read_text().splitlines().index("    banana: 1")
    assert message.startswith(f"{tmp_path / SEARCH}, line {line}: candidates.few.banana: unknown")
    message = refusal(lambda values: values["candidates"]["few"].update(training={}))
    assert ": candidates.few.training: is empty, which changes nothing of {" in message
