"""What decides the result of each job beside training, as digests.

The workflow runs a job again when its digest or one of its inputs changes. So a digest holds what
the job reads of the settings and no more: a further judge trains nothing again. What decides a
training run is `Settings.run_digest`.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Literal

from bpgo.config.digests import JUDGING, MEASURED, digest_of
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


def sample_digest(settings: Settings, run: Run) -> str:
    """Of a policy's samples of evaluation prompts; the base policy's are no experiment's own."""
    judged = [settings.model, settings.evaluation, settings.prompts.decides("evaluation")]
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
    return digest_of(sample_digest(settings, run), wanted, settings.features)


def score_digest(settings: Settings, run: Run, environment: str) -> str:
    """Of the scores of those samples by the rewards of one environment."""
    names = settings.in_environment(run.experiment, environment)
    return digest_of(sample_digest(settings, run), names, settings.settings_of(names))


def samples_folder(run: Run) -> str:
    """Where a run's samples lie, below `samples`; those of the base policy serve every experiment.

    `experiment/arm/seed_1`, or `base/seed_1`.
    """
    return f"{BASE_ARM}/seed_{run.seed}" if run.arm == BASE_ARM else run.folder
