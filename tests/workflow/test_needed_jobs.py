"""After a change, exactly the jobs that it needs are planned: only what decides a policy trains it.

Finished results are files without content that Snakemake believes to have made (`--touch`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import Outcome, Workspace, workspace_in

ANALYSIS = dict.fromkeys(
    ["collect", "statistics", "tables", "plots", "grids", "report", "smoke"], 1
)
# The smoke scale: 5 trained runs of `ambiguous` and `clear`, whose seeds are 1, and 1 and 2.
AMBIGUOUS, CLEAR = 4, 2
RUNS, SEEDS, BASES = AMBIGUOUS + CLEAR, 2, 3
Change = Callable[[dict[str, Any]], None]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = workspace_in(tmp_path_factory.mktemp("needed"))
    plan = workspace.snakemake("--dry-run", "smoke")
    assert plan.code == 0, plan.text
    for name in re.findall(r"^    output: (.*)$", plan.text, flags=re.MULTILINE):
        for output in name.split(", "):
            path = workspace.path(output.split(" ")[0])
            (path if path.suffix else path / "file").parent.mkdir(parents=True, exist_ok=True)
            if path.suffix:
                path.touch()
    outcome = workspace.snakemake("--touch", "--forceall", "smoke")
    assert outcome.code == 0, outcome.text
    return workspace


def planned(workspace: Workspace, change: Change, name: str = "config") -> Outcome:
    """What a change of `config/{name}.yaml` makes necessary."""
    path = workspace.path(f"config/{name}.yaml")
    kept = path.read_bytes()
    workspace.edit(change, name)
    try:
        plan = workspace.snakemake("--dry-run", "smoke")
    finally:
        path.write_bytes(kept)
    assert plan.code == 0, plan.text
    return plan


def at(place: str, value: Any) -> Change:
    """A change of one value, or of a list by one more entry (`place` ends in a `+`)."""
    *path, last = place.rstrip("+").split(".")

    def change(values: dict[str, Any]) -> None:
        for key in path:
            values = values.setdefault(key, {})
        values[last] = [*values[last], value] if place.endswith("+") else value

    return change


def nothing_measured(values: dict[str, Any]) -> None:
    values["features"] = None
    for evaluation in (values["evaluation"], values["smoke"]["evaluation"]):
        evaluation.update(divergence_prompts=0, diversity_prompts=0)


def test_the_sizes_are_those_of_the_smoke_run(finished: Workspace) -> None:
    values = yaml.safe_load(finished.configfile.read_text())["smoke"]
    ambiguous, clear = (values["experiments"][name] for name in ("ambiguous", "clear"))
    swept = len(values["sweeps"]["alpha"]["values"])
    assert len(ambiguous["seeds"]) * (len(ambiguous["arms"]) + swept) == AMBIGUOUS
    assert len(clear["seeds"]) * len(clear["arms"]) == CLEAR
    assert len({*ambiguous["seeds"], *clear["seeds"]}) == SEEDS
    assert len(ambiguous["seeds"]) + len(clear["seeds"]) == BASES


def test_nothing_is_planned_without_a_change(finished: Workspace) -> None:
    assert "Nothing to be done" in planned(finished, lambda values: None).text


JUDGED = {"judge": 1, "score": AMBIGUOUS + 1}
MEASURED = {"harm": RUNS, "harm_base": SEEDS}
SCORED = {"sample": RUNS, "sample_base": SEEDS, "score": RUNS + BASES, **MEASURED}
OF_A_RUN = ("train", "sample", "score", "harm")
TRAINED = dict.fromkeys(OF_A_RUN, RUNS)
ONE = dict.fromkeys(OF_A_RUN, 1)
AGAIN = dict.fromkeys(OF_A_RUN, AMBIGUOUS)  # the base's scores stay
EXPERIMENT = "experiments.ambiguous"
CASES: dict[str, tuple[Change, dict[str, int]]] = {
    "title": (at("title", "Another"), {}),
    "an experiment's title": (at(f"{EXPERIMENT}.title", "Another"), {}),
    "bootstrap": (at("analysis.seed", 7), {}),
    "another reference arm, same sampler": (at("analysis.reference_arm", "bpgo"), {}),
    "judge": (at(f"{EXPERIMENT}.judges+", "scenes_clear_a"), JUDGED),
    "one judge less": (at(f"{EXPERIMENT}.judges", ["oracle", "oracle_strict"]), JUDGED),
    "a judge in another environment": (
        at(f"{EXPERIMENT}.judges+", "hpsv2_official"),
        {"score": AMBIGUOUS + 1},
    ),
    "other settings of a judge": (
        at("overrides.rewards.scenes_ambiguous_b.pool", "c"),
        JUDGED,
    ),
    "arm": (at(f"smoke.{EXPERIMENT}.arms+", "bpgo_crt"), ONE),
    "seed": (
        at("smoke.experiments.clear.seeds+", 3),
        {**ONE, "sample_base": 1, "harm_base": 1, "score": 2},
    ),
    "a seed that another experiment has": (
        at(f"smoke.{EXPERIMENT}.seeds+", 2),
        {**AGAIN, "score": AMBIGUOUS + 1},
    ),
    "sweep value": (at("smoke.sweeps.alpha.values+", 0.1), ONE),
    "more samples to compare": (at("smoke.evaluation.diversity_samples", 6), MEASURED),
    "nothing beside scores": (nothing_measured, {}),
    "more evaluation prompts": (at("smoke.evaluation.prompts", 48), SCORED),
    "more in the prompt set": (
        at("overrides.prompts.scenes.evaluation", 600),
        {"prompts": 1, **SCORED},
    ),
    "noise levels of judging": (
        at("overrides.models.scenes", {"evaluation_schedule": "static"}),
        SCORED,
    ),
    "diagnostic": (at(f"{EXPERIMENT}.diagnostics+", "oracle_strict"), AGAIN),
    "training reward": (
        at(f"{EXPERIMENT}.training_reward", "scenes_ambiguous_b"),
        # The base's scores are by other rewards now.
        {"calibrate": 1, "judge": 1, **AGAIN, "score": AMBIGUOUS + 1},
    ),
    "learning rate": (at("training.learning_rate", 3.0e-4), TRAINED),
    "group size": (at("rollout.group_size", 8), TRAINED),
    "calibration": (
        at("smoke.calibration.prompts", 12),
        {"draw": 1, "calibrate": 2, "judge": 2, **TRAINED},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_exactly_what_is_needed_is_planned(finished: Workspace, case: str) -> None:
    change, wanted = CASES[case]
    assert planned(finished, change).jobs() == Counter(ANALYSIS | wanted)


def test_a_judge_is_asked_of_its_experiment_only(finished: Workspace) -> None:
    plan = planned(finished, at(f"{EXPERIMENT}.judges+", "scenes_clear_a"))
    for rule in ("judge", "score"):
        assert {job["experiment"] for job in plan.wildcards(rule)} == {"ambiguous"}


def test_a_judge_in_another_environment_leaves_the_others_alone(finished: Workspace) -> None:
    plan = planned(finished, at(f"{EXPERIMENT}.judges+", "hpsv2_official"))
    assert {job["environment"] for job in plan.wildcards("score")} == {"hpsv2"}


def test_a_new_arm_trains_itself_alone(finished: Workspace) -> None:
    plan = planned(finished, at(f"smoke.{EXPERIMENT}.arms+", "bpgo_crt"))
    for rule in ("train", "sample", "score"):
        assert [job["arm"] for job in plan.wildcards(rule)] == ["bpgo_crt"]


def test_the_reference_arms_noise_draws_the_calibration_anew(finished: Workspace) -> None:
    """And every run is anchored to it."""
    plan = planned(finished, at("overrides.arms.grpo.noise_level", 0.5))
    assert [job["sampler"] for job in plan.wildcards("draw")] == ["dance_0p5_2"]
    assert plan.jobs() == Counter(ANALYSIS | {"draw": 1, "calibrate": 2, "judge": 2} | TRAINED)


def test_a_title_of_an_arm_trains_nothing(finished: Workspace, tmp_path: Path) -> None:
    assert planned(finished, at("title", "Renamed"), "arms/bpgo").jobs() == Counter(ANALYSIS)
