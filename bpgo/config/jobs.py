"""What decides the result of each job beside training, as digests.

The workflow runs a job again when its digest or one of its inputs changes. So a digest holds what
the job reads of the settings and no more: a further judge trains nothing again. What decides a
training run is `Settings.run_digest`.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Literal

from bpgo.config.digests import JUDGING, MEASURED, digest_of, once_a_run
from bpgo.config.given import GIVEN
from bpgo.config.runs import Run, Sampler
from bpgo.config.settings import BASE_ARM, MAIN, Settings


def prompts_digest(settings: Settings, split: Literal["train", "evaluation"]) -> str:
    """Of one split's prompts."""
    return digest_of(settings.prompts.decides(split))


def draw_digest(settings: Settings, sampler: Sampler) -> str:
    """Of the base policy's samples of training prompts, which experiments share."""
    rollout = settings.rollout
    return digest_of(
        settings.model,
        settings.training.parameters,  # they decide in which type the base policy computes
        settings.prompts.decides("train"),
        settings.calibration,
        asdict(sampler),
        [rollout.steps, rollout.deterministic_tail, rollout.guidance_scale],
        without=JUDGING,
    )


def calibrated_rewards(settings: Settings, experiment: str) -> list[str]:
    """Names of the rewards of which training has to know what the base policy earns."""
    chosen = settings.experiments[experiment]
    scaled = [name for name in chosen.diagnostics if settings.rewards[name].needs_calibration]
    return list(dict.fromkeys([chosen.training_reward, *scaled]))


def calibration_digest(settings: Settings, experiment: str) -> str:
    """Of what an experiment's training knows of those samples: the training reward's scale."""
    names = calibrated_rewards(settings, experiment)
    drawn = draw_digest(settings, settings.sampler_of(experiment))
    return digest_of(drawn, names, settings.settings_of(names))


def judging_digest(settings: Settings, experiment: str) -> str:
    """Of the scores of those samples by every reward, which no training depends on."""
    names = settings.in_environment(experiment, MAIN)
    return digest_of(calibration_digest(settings, experiment), names, settings.settings_of(names))


@once_a_run
def sample_digest(settings: Settings, run: Run) -> str:
    """Of a policy's samples of evaluation prompts; those of no training are no experiment's own."""
    judged = [settings.model, settings.evaluation, settings.prompts.decides("evaluation")]
    if run.arm in settings.policies:
        policy = settings.policies[run.arm].decides()
        return digest_of(policy, run.seed, judged, settings.judging_guidance, without=MEASURED)
    if run.arm != BASE_ARM:
        return digest_of(settings.run_digest(run), judged, without=MEASURED)
    computes = settings.training.parameters
    given = (BASE_ARM, run.seed, judged, settings.judging_guidance, computes)
    return digest_of(*given, without=MEASURED)


def harm_digest(settings: Settings, run: Run) -> str:
    """Of what is measured of a policy beside its scores; the base policy's is no experiment's own.

    A run's digest has the sampler of the divergence.
    """
    wanted = [getattr(settings.evaluation, key) for key in MEASURED]
    if run.arm in settings.policies:
        wanted += [settings.rollout, asdict(settings.sampler_of(run.experiment))]
    return digest_of(sample_digest(settings, run), wanted, settings.features)


def score_digest(settings: Settings, run: Run, environment: str) -> str:
    """Of the scores of those samples by the rewards of one environment."""
    names = settings.in_environment(run.experiment, environment)
    return digest_of(sample_digest(settings, run), names, settings.settings_of(names))


def scored_runs(settings: Settings) -> list[Run]:
    """Every run whose samples are scored: the base policy's, given policies', trained ones."""
    return [*settings.base_runs(), *settings.given_runs(), *settings.runs()]


def measured_runs(settings: Settings) -> list[Run]:
    """Every run of which more than scores is measured."""
    runs = settings.base_runs() if settings.draws_diversity else []
    others = [*settings.given_runs(), *settings.runs()] if settings.measures_harm else []
    return [*runs, *others]


def samples_folder(run: Run, settings: Settings) -> str:
    """Where a run's samples lie, below `samples`.

    `experiment/arm/seed_1`; those of the base policy, `base/seed_1`, and of given policies,
    `given/policy/seed_1`, serve every experiment.
    """
    if run.arm in settings.policies:
        return f"{GIVEN}/{run.arm}/seed_{run.seed}"
    return harm_folder(run)


def harm_folder(run: Run) -> str:
    """Where it lies what is measured of a run, below `harm`; the base policy's is one for all."""
    return f"{BASE_ARM}/seed_{run.seed}" if run.arm == BASE_ARM else run.folder
