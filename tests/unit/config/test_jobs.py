"""What each job depends on: a change that does not concern it leaves its digest."""

from __future__ import annotations

from typing import Any

import pytest
from shipped_arms import NAMES

from bpgo.config import jobs
from bpgo.config import resolve as config
from bpgo.config.digests import REMEMBERED, digest_of
from bpgo.config.model import LoraSettings
from bpgo.config.runs import Run, Sampler
from bpgo.config.settings import MAIN, Settings
from bpgo.registry import load_arm_class, load_prompts_class
from bpgo.storage.files import text_digest

FOLDER = config.default_configfile().parent
RUN, BASE = Run("ambiguous", "grpo", 1), Run("ambiguous", "base", 1)


def resolved(change: dict[str, Any] | None = None) -> Settings:
    """The default, with an arm of another kernel and one whose steps all may have noise."""
    values = config.read_yaml(config.default_configfile())
    values["experiments"]["ambiguous"]["arms"].append("flow_grpo")
    for place, value in (change or {}).items():
        *path, last = place.split(".")
        at = values
        for key in path:
            at = at.setdefault(key, {})
        at[last] = value
    return config.resolve(values, FOLDER)


def digests(settings: Settings) -> dict[str, str]:
    """By job."""
    return {
        "train prompts": jobs.prompts_digest(settings, "train"),
        "evaluation prompts": jobs.prompts_digest(settings, "evaluation"),
        "draw": jobs.draw_digest(settings, settings.sampler_of("ambiguous")),
        "calibrate": jobs.calibration_digest(settings, "ambiguous"),
        "judge": jobs.judging_digest(settings, "ambiguous"),
        "train": settings.run_digest(RUN),
        "sample": jobs.sample_digest(settings, RUN),
        "sample base": jobs.sample_digest(settings, BASE),
        "score": jobs.score_digest(settings, RUN, MAIN),
        "score base": jobs.score_digest(settings, BASE, MAIN),
    }


PREMISE = {"draw", "calibrate", "judge"}
TRAINED = {"train", "sample", "score"}
JUDGED = {"sample", "sample base", "score", "score base"}
JUDGES = ["scenes_ambiguous_b", "scenes_ambiguous_c", "oracle", "oracle_strict", "scenes_clear_a"]
MODEL = "overrides.models.scenes"
CASES: list[tuple[dict[str, Any], set[str]]] = [
    ({"title": "Another"}, set()),
    ({"experiments.clear.judges": ["oracle"]}, set()),
    ({"experiments.ambiguous.seeds": [1, 2, 3, 4]}, set()),
    ({"experiments.ambiguous.judges": JUDGES}, {"judge", "score", "score base"}),
    ({"experiments.ambiguous.diagnostics": ["oracle", "oracle_strict"]}, TRAINED),
    ({"experiments.ambiguous.primary": None}, set()),
    ({"experiments.ambiguous.primary.arm": "bpgo_ras"}, set()),
    ({"experiments.ambiguous.primary.metric": "oracle_strict"}, set()),
    ({"analysis.reference_arm": "bpgo"}, set()),  # it has the same sampler
    ({"analysis.reference_arm": "flow_grpo"}, PREMISE | TRAINED),
    ({"evaluation.prompts": 400}, JUDGED),
    ({"evaluation.batch_size": 7, "rollout.batch_size": 7}, set()),
    ({"training.learning_rate": 1e-3}, TRAINED),
    ({"rollout.group_size": 6}, TRAINED),
    ({"rollout.steps": 9}, PREMISE | TRAINED),
    ({"calibration.prompts": 100}, PREMISE | TRAINED),
    ({f"{MODEL}.evaluation_schedule": "static"}, JUDGED),
    ({"overrides.prompts.scenes.evaluation": 600}, {"evaluation prompts"} | JUDGED),
    (
        {"overrides.prompts.scenes.train": 600},
        {"train prompts"} | PREMISE | TRAINED,
    ),
    (
        {"experiments.ambiguous.training_reward": "scenes_ambiguous_b"},
        {"calibrate", "judge", "score base"} | TRAINED,
    ),
]


@pytest.mark.parametrize(("change", "heard"), CASES, ids=[", ".join(c) for c, _ in CASES])
def test_a_job_hears_of_what_it_reads(change: dict[str, Any], heard: set[str]) -> None:
    before, after = digests(resolved()), digests(resolved(change))
    assert {name for name in before if before[name] != after[name]} == heard


def test_guidance_of_training_is_heard_by_judging_where_nothing_else_is_said() -> None:
    flux = {"model": "flux1_dev", "overrides": {}}  # the embedded one has no guidance
    before = digests(resolved({**flux, "rollout.guidance_scale": 1.0}))
    after = digests(resolved({**flux, "rollout.guidance_scale": 2.0}))
    assert before["sample base"] != after["sample base"]
    own = [
        digests(resolved({**flux, "rollout.guidance_scale": s, "evaluation.guidance_scale": 1.0}))
        for s in (1.0, 2.0)
    ]
    assert own[0]["sample base"] == own[1]["sample base"]


def test_splits_of_files_depend_on_each_other() -> None:
    """Training takes no text that evaluation took, so both counts decide both splits."""
    kind: Any = load_prompts_class("file").Settings
    entry = {"kind": "file", "train": 10, "files": {"mine": {"path": "mine.txt"}}}
    first, second = (kind.model_validate(entry | {"evaluation": count}) for count in (10, 20))
    assert first.decides("train") != second.decides("train")
    assert first.decides("evaluation") != second.decides("evaluation")


@pytest.mark.parametrize("name", NAMES)
def test_a_sampler_is_what_the_arm_draws_with(name: str) -> None:
    chosen: Any = config.load_arm(name, FOLDER)
    arm = load_arm_class(chosen.algorithm)(chosen)
    entry = resolved().experiments["clear"].model_copy(update={"arms": [name]})
    settings = resolved().model_copy(
        update={"experiments": {"clear": entry}, "arms": {name: chosen}}
    )
    noisy = getattr(chosen, "stochastic_steps", None)
    assert settings.sampler_of("clear") == Sampler(arm.kernel, arm.noise_level, noisy)


def test_names_of_samplers() -> None:
    names = {Sampler("dance", level).name for level in (0.3, 1.0, 0.25, 1e-5)}
    assert names == {"dance_0p3", "dance_1p0", "dance_0p25", "dance_1em05"}
    assert Sampler("ode", 0.0).name == "ode_0p0"
    assert Sampler("dance", 1.2, 2).name == "dance_1p2_2"


def test_steps_with_noise_of_a_sampler() -> None:
    samplers = (Sampler("dance", 1.2), Sampler("dance", 1.2, 2), Sampler("ode", 0.0))
    assert [sampler.noisy_steps(steps=6, tail=1) for sampler in samplers] == [5, 2, 0]


def test_the_number_of_steps_with_noise_is_heard() -> None:
    key = "overrides.arms.grpo.stochastic_steps"
    first, second = resolved({key: 2}), resolved({key: 3})
    assert first.sampler_of("ambiguous").name != second.sampler_of("ambiguous").name
    before, after = digests(first), digests(second)
    assert {name for name in before if before[name] != after[name]} == PREMISE | TRAINED


def test_the_base_policys_samples_are_no_experiments() -> None:
    settings = resolved()
    other = jobs.samples_folder(Run("clear", "base", 1), settings)
    assert jobs.samples_folder(BASE, settings) == other
    assert jobs.samples_folder(RUN, settings) == RUN.folder
    for each in (1, 2):
        first, second = (Run(name, "base", each) for name in ("ambiguous", "clear"))
        assert jobs.sample_digest(settings, first) == jobs.sample_digest(settings, second)
    other = Run("ambiguous", "base", 2)
    assert jobs.sample_digest(settings, BASE) != jobs.sample_digest(settings, other)


def test_a_digest_hears_of_a_record_at_the_place_of_another() -> None:
    """What is remembered of records is of these records, also where memory is used again."""

    def digest(alpha: float) -> str:
        return digest_of(LoraSettings(alpha=alpha))

    values = [1.0 + number / 10_000 for number in range(2 * REMEMBERED)]
    first = [digest(value) for value in values]
    assert len(set(first)) == len(values)
    assert [digest(value) for value in values[:50]] == first[:50]


def test_the_digest_of_a_run_is_made_once_for_all_of_its_jobs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A plan of a thousand runs asks for it four thousand times."""
    first, second = resolved(), resolved({"training.learning_rate": 1e-6})
    made: list[Any] = []

    def counted(value: Any) -> str:
        made.append(value)
        return text_digest(value)

    monkeypatch.setattr("bpgo.config.digests.text_digest", counted)
    others = [first.run_digest(RUN), jobs.sample_digest(first, RUN), jobs.harm_digest(first, RUN)]
    others += [jobs.score_digest(first, RUN, MAIN), jobs.score_digest(first, RUN, "other")]
    assert len(set(others)) == 5
    assert len(made) == 5
    assert first.run_digest(Run("ambiguous", "grpo", 2)) != others[0], "another run's"
    assert second.run_digest(RUN) != others[0], "another configuration's"
    assert jobs.sample_digest(second, RUN) != others[1]
    assert first.run_digest(RUN) == others[0]
