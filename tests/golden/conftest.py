"""`pytest tests/golden --golden FOLDER` runs another folder of cases, or several."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.append(str(Path(__file__).resolve().parents[1] / "fixtures"))

SHIPPED = Path(__file__).parent / "cases"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden",
        action="append",
        metavar="FOLDER",
        help="a folder with manifest.json and .npz files (default: the shipped cases)",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    from golden_case import load_cases

    if "case" in metafunc.fixturenames:
        folders = metafunc.config.getoption("golden", default=None) or [SHIPPED]
        for folder in folders:
            if not (Path(folder) / "manifest.json").is_file():
                raise pytest.UsageError(f"--golden: {folder} holds no manifest.json")
        cases = [case for folder in folders for case in load_cases(Path(folder))]
        metafunc.parametrize("case", cases, ids=[case.id for case in cases])
