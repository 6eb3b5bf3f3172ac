"""What all tests share: one thread, no network, no time limit on a property's examples."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

# One thread per process, as in the workflow's jobs: results do not depend on the machine's cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Results are compared with those of a CPU, and processes side by side would share one GPU.
if shutil.which("nvidia-smi"):
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest
from hypothesis import settings as hypothesis_settings

import bpgo  # noqa: F401  repairs torchvision before anything imports it

REPOSITORY = Path(__file__).resolve().parent.parent
# Files that take minutes, the longest first: whole workflows.
LONGEST = (
    "test_slurm",
    "test_published_video_models",
    "test_video",
    "test_published_models",
    "test_smoke",
    "test_conda",
    "test_resume",
)

hypothesis_settings.register_profile("suite", deadline=None, derandomize=True)
hypothesis_settings.load_profile("suite")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The clone's root."""
    return REPOSITORY


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, then other slow tests: several workers end at about the same time.

    A worker takes whole files.
    """

    def rank(item: pytest.Item) -> int:
        if item.path.stem in LONGEST:
            return LONGEST.index(item.path.stem)
        return len(LONGEST) + (item.get_closest_marker("slow") is None)

    items.sort(key=rank)
