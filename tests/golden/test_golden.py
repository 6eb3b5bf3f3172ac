"""Our mathematics against numbers that published code returned.

Tolerances: 2e-5 relative and 1e-6 absolute; 1e-10 where float64 goes in and comes out. Adapters
widen them where the published arithmetic says so.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from golden_case import Case
from golden_table import ADAPTERS, NO_COUNTERPART, find


def _tolerance(case: Case, expected: np.ndarray) -> tuple[float, float]:
    """(relative, absolute): float64 only where every number that enters is."""
    inputs = [array.dtype for name, array in case.arrays.items() if name.startswith("in_")]
    single = expected.dtype == np.float32 or np.dtype(np.float32) in inputs
    return (2e-5, 1e-6) if single or expected.dtype.kind != "f" else (1e-10, 1e-10)


def test_case(case: Case) -> None:
    adapter = find(case)
    if isinstance(adapter, str):
        pytest.skip(adapter)
    answers = adapter(case)
    unknown = case.unknown(answers)
    assert not unknown, f"{case.function} is known, but not its {', '.join(unknown)}"
    for name, expected in case.expected().items():
        if name in case.not_ours:
            continue
        answer = torch.as_tensor(answers[name]).detach().double().numpy()
        if answer.size == expected.size:
            answer = answer.reshape(expected.shape)
        answer = np.broadcast_to(answer, expected.shape)
        relative, absolute = _tolerance(case, expected)
        relative = case.relative.get(name, relative)
        absolute = case.absolute.get(name, absolute)
        np.testing.assert_allclose(
            answer, expected, rtol=relative, atol=absolute, err_msg=f"{case.id}: {name}"
        )


def test_an_unknown_argument_of_a_known_function_fails(tmp_path) -> None:
    entry = {
        "id": "x",
        "repo": "arXiv:2511.18919",
        "file": "Eq. 2",
        "function": "RAS",
        "args": {"alpha": 0.5, "k": 5.0, "temperature": 2.0},
    }
    arrays = {"in_mean_reward": np.zeros(3), "in_prior": np.array(0.3), "out_w": np.ones(3)}
    case = Case(tmp_path, entry, arrays)
    adapter = find(case)
    assert not isinstance(adapter, str)
    assert case.unknown(adapter(case)) == ["argument temperature"]


def test_what_has_an_adapter_has_a_counterpart() -> None:
    known = {row[:3] for row in ADAPTERS}
    assert not known & {row[:3] for row in NO_COUNTERPART}
