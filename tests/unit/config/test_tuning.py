"""Equal tuning: as many candidates for every arm, drawn as declared, checked before any job."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from bpgo.config.resolve import default_configfile, load, load_resolved, resolve, save_resolved
from bpgo.config.settings import Settings
from bpgo.config.tuning import TUNE, drawn_values, overlay, values_of
from bpgo.config.variants import LEARNING_RATE, Range, TuneSettings
from bpgo.errors import UserError

Values = dict[str, Any]
FOLDER = default_configfile().parent
FILE = FOLDER / TUNE


def tuned(change: Callable[[Values], Any] = lambda _: None) -> Settings:
    """The shipped search, changed."""
    values = yaml.safe_load(FILE.read_text())
    values.pop("root")
    change(values)
    return resolve(values, FOLDER, str(FILE))


def search_of(settings: Settings) -> TuneSettings:
    assert settings.tune is not None
    return settings.tune


def test_the_shipped_search_is_equal_for_every_arm() -> None:
    settings = load(FILE)
    tune = search_of(settings)
    [entry] = settings.experiments.values()
    files = {path.stem for path in (FOLDER / "arms").glob("*.yaml")}
    assert set(entry.arms) <= files
    assert len(settings.runs()) == len(entry.arms) * (1 + tune.candidates) * len(entry.seeds)
    bounds = {str(tune.ranges[arm][LEARNING_RATE]) for arm in entry.arms}
    assert len(bounds) == 1, "every arm has the same learning rates to choose from"
    for arm in entry.arms:
        has = settings.arms[arm].model_dump()
        for setting in ("clip_range", "noise_level"):
            idle = (arm, setting) in {("flash_grpo", "noise_level"), ("awm", "clip_range")}
            wanted = has.get(setting) is not None and not idle
            assert (setting in tune.ranges[arm]) == wanted, (arm, setting)


def test_ranges_hold_what_is_drawn_and_reach_both_ends() -> None:
    log, linear = Range(log=[1e-5, 1e-3]), Range(linear=[-1.0, 3.0])
    assert log.at(0.0) == 1e-5
    assert log.at(0.5) == 1e-4
    assert math.isclose(log.at(1 - 1e-9), 1e-3)
    assert linear.at(0.25) == 0.0
    choice = Range(choice=[None, "a", 3])
    assert [choice.at(share) for share in (0, 0.33, 0.34, 0.66, 0.67, 0.999)] == [
        *(None, None),
        *("a", "a"),
        *(3, 3),
    ]


def test_a_draw_depends_on_its_own_name_alone() -> None:
    """Another arm, setting or number of candidates leaves what was drawn."""
    before = search_of(tuned())

    def other(values: Values) -> None:
        values["experiments"]["ambiguous"]["arms"] = ["crd", "grpo"]
        values["tune"]["candidates"] = 2
        del values["tune"]["ranges"]["grpo"]["noise_level"]

    after = search_of(tuned(other))
    kept = {k: v for k, v in drawn_values(before, "grpo", 2).items() if k != "noise_level"}
    assert drawn_values(after, "grpo", 2) == kept
    assert drawn_values(before, "grpo", 1) != drawn_values(before, "grpo", 2)
    again = before.model_copy(update={"seed": 1})
    assert drawn_values(again, "grpo", 1) != drawn_values(before, "grpo", 1)


def test_candidates_have_what_was_drawn_and_else_their_arm(tmp_path: Path) -> None:
    settings = tuned()
    tune = search_of(settings)
    drawn = drawn_values(tune, "bpgo", 3)
    assert values_of(settings, "bpgo", "bpgo_try_03") == drawn
    own, made = (settings.arms[name].model_dump() for name in ("bpgo", "bpgo_try_03"))
    assert made["advantage"] == own["advantage"]
    assert made["trust"]["alpha"] == drawn["trust.alpha"] != own["trust"]["alpha"]
    assert settings.training.of("bpgo_try_03").learning_rate == drawn[LEARNING_RATE]
    assert settings.training.of("bpgo").learning_rate == settings.training.learning_rate
    save_resolved(settings, tmp_path / "resolved.yaml")
    assert load_resolved(tmp_path / "resolved.yaml") == settings


def test_a_run_depends_on_its_own_learning_rate_alone() -> None:
    plain = load(default_configfile())
    run = next(run for run in plain.runs() if run.arm == "grpo")

    def with_rates(rates: dict[str, float]) -> str:
        training = plain.training.model_copy(update={"learning_rates": rates})
        return plain.model_copy(update={"training": training}).run_digest(run)

    assert with_rates({"bpgo": 3e-4}) == plain.run_digest(run)
    assert with_rates({"grpo": plain.training.learning_rate}) == plain.run_digest(run)
    assert with_rates({"grpo": 3e-4}) != plain.run_digest(run)


def test_the_overlay_makes_arms_that_are_the_chosen_candidates() -> None:
    """Arms are built on each other; none inherits what was chosen for another."""
    settings = tuned()
    tune = search_of(settings)
    [entry] = settings.experiments.values()
    chosen = {arm: tune.names(arm)[1 + at % 3] for at, arm in enumerate(entry.arms)}
    laid = overlay(settings, chosen)

    def lay(values: Values) -> None:
        del values["tune"]
        for arm, change in laid["overrides"]["arms"].items():
            merge(values["overrides"]["arms"].setdefault(arm, {}), change)
        values["training"] |= laid["training"]

    def merge(into: Values, change: Values) -> None:
        for key, value in change.items():
            if isinstance(value, dict) and isinstance(into.get(key), dict):
                merge(into[key], value)
            else:
                into[key] = value

    made = tuned(lay)
    for arm, name in chosen.items():
        wanted = settings.arms[name].model_dump() | {"title": ""}
        assert made.arms[arm].model_dump() | {"title": ""} == wanted, arm
        rates = [each.training.of(at).learning_rate for each, at in ((made, arm), (settings, name))]
        assert rates[0] == rates[1]


def test_the_overlay_of_a_search_of_learning_rates_alone(tmp_path: Path) -> None:
    """An empty mapping laid over others would be refused."""

    def rates_alone(values: Values) -> None:
        ranges = values["tune"]["ranges"]
        for arm, entry in ranges.items():
            ranges[arm] = {LEARNING_RATE: entry[LEARNING_RATE]}

    settings = tuned(rates_alone)
    [entry] = settings.experiments.values()
    laid = overlay(settings, {arm: search_of(settings).names(arm)[1] for arm in entry.arms})
    path = tmp_path / "chosen.yaml"
    path.write_text(yaml.safe_dump(laid))
    assert load([default_configfile(), path]).training.learning_rates.keys() == set(entry.arms)


def ranges(**changed: Any) -> Callable[[Values], Any]:
    return lambda values: values["tune"]["ranges"]["grpo"].update(changed)


def seeds(*given: int) -> Callable[[Values], Any]:
    return lambda values: values["experiments"]["ambiguous"].update(seeds=list(given))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v["tune"]["ranges"].pop("crd"), "'crd' of experiments.ambiguous.arms has no"),
        (lambda v: v["tune"]["ranges"].update(cdr={}), "'cdr' is no arm of the folder arms. Did"),
        (
            lambda v: v["tune"]["ranges"]["crd"].pop(LEARNING_RATE),
            "tune.ranges.crd: has no learning_rate, which is tuned for every arm",
        ),
        (ranges(learning_rate={"linear": [0.0, 1e-3]}), "learning_rate: 0.0 is not allowed"),
        (ranges(clip_range={"linear": [-1.0, 1.0]}), "tune.ranges.grpo.clip_range: -1.0 is not"),
        (ranges(clip_rnage={"log": [1.0, 2.0]}), "tune.ranges.grpo.clip_rnage: unknown key. Did"),
        (ranges(kernel={"choice": ["dance", "dence"]}), "tune.ranges.grpo.kernel: 'dence' is not"),
        (ranges(noise_level={"log": [2.0, 1.0]}), "the first bound must be below the second"),
        (ranges(noise_level={"log": [0.0, 1.0]}), "bounds of log must be above 0"),
        (ranges(noise_level={"uniform": [0.0, 1.0]}), "noise_level.uniform: unknown key"),
        (ranges(noise_level={}), "must have one of log, linear and choice"),
        (ranges(**{"window.size": {"choice": [1, 2]}}), "has no mapping 'window'"),
        (seeds(41, 2), "seeds: 2 is a seed of"),
        (seeds(5), "second_seeds.yaml"),
        (seeds(33), "instrument.yaml"),
        (lambda v: v["tune"].update(reported_by=["none.yaml"]), "tune.reported_by: there is no"),
        (lambda v: v["tune"].update(candidates=0), "tune.candidates: 0 is not allowed"),
        (lambda v: v["tune"].update(candiates=3), "tune.candiates: unknown key. Did you mean"),
        (lambda v: v["tune"].update(experiment="clear"), "'clear' is not an experiment"),
        (
            lambda v: v["training"].update(learning_rates={"grop": 1e-4}),
            "training.learning_rates: 'grop' is",
        ),
    ],
)
def test_a_mistake_is_one_message(change: Callable[[Values], Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        tuned(change)
    [line] = str(caught.value).splitlines()
    assert message in line
    assert line.startswith(str(FILE))


def test_seeds_are_compared_with_the_files_beside_the_configuration(tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path / "config")
    mine = tmp_path / "config" / "config.yaml"
    text = mine.read_text().replace("seeds: [1, 2, 3]", "seeds: [41, 42, 43]", 1)
    mine.write_text(text)
    with pytest.raises(UserError, match=r"41 is a seed of .*config.yaml"):
        load(tmp_path / "config" / TUNE)
