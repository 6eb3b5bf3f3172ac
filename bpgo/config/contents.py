"""What the files of a results folder hold, in words: whose they are, and by which settings.

Files carry these words in their seals (`bpgo.storage.seals`), and readers ask for them: a file in
another's place, or of other settings, is found.
"""

from __future__ import annotations

from bpgo.config.jobs import (
    calibration_digest,
    draw_digest,
    harm_folder,
    judging_digest,
    sample_digest,
    samples_folder,
)
from bpgo.config.runs import Run
from bpgo.config.settings import Settings
from bpgo.storage.seals import sealed_of


def calibration(settings: Settings, experiment: str) -> str:
    """Of `calibration.json`."""
    return sealed_of("calibration", experiment, calibration_digest(settings, experiment))


def calibration_scores(settings: Settings, experiment: str) -> str:
    """Of the calibration's scores: `scores.parquet`, and `samples.parquet` with all rewards."""
    digest = draw_digest(settings, settings.sampler_of(experiment))
    return sealed_of("calibration's scores", experiment, digest)


def scales(settings: Settings, experiment: str) -> str:
    """Of `scales.json`."""
    return sealed_of("rewards' scales", experiment, judging_digest(settings, experiment))


def training(settings: Settings, run: Run, name: str) -> str:
    """Of a trained run's `name`: `manifest`, `metrics` or `rollouts`."""
    return sealed_of(name, run.folder, settings.run_digest(run))


def samples(settings: Settings, run: Run) -> str:
    """Of `index.parquet`."""
    return sealed_of("samples", samples_folder(run, settings), sample_digest(settings, run))


def scores(settings: Settings, run: Run, environment: str) -> str:
    """Of the scores of those samples; a reward more or less is no other file."""
    what = f"scores (environment {environment})"
    return sealed_of(what, run.folder, sample_digest(settings, run))


def harm(settings: Settings, run: Run) -> str:
    """Of what is measured of a policy beside its scores."""
    return sealed_of("measures", harm_folder(run), sample_digest(settings, run))
