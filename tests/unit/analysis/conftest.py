"""One small made-up set of runs, and what the analysis makes of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import synthetic

from bpgo.analysis.collect import collect
from bpgo.analysis.statistics.compute import compute_statistics, load_statistics
from bpgo.config.runs import Run

LOST = Run("ambiguous", "flow_grpo", 2)


@pytest.fixture(scope="session")
def settings():
    return synthetic.make_settings(**synthetic.SMALL)


@pytest.fixture(scope="session")
def root(settings, tmp_path_factory) -> Path:
    """Runs, scores, calibration and their collection; one run is missing."""
    folder = tmp_path_factory.mktemp("results")
    synthetic.write_root(settings, folder, skip=(LOST,))
    collect(settings, folder, folder / "collected")
    return folder


@pytest.fixture(scope="session")
def statistics(settings, root) -> Path:
    compute_statistics(settings, root / "collected", root / "statistics")
    return root / "statistics"


@pytest.fixture(scope="session")
def frames(statistics):
    return load_statistics(statistics)[0]


@pytest.fixture(scope="session")
def account(statistics):
    return load_statistics(statistics)[1]
