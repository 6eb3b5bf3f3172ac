"""One golden case: what a published function was given and what it returned."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

REQUIRED = object()
DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


@dataclass
class Case:
    """A manifest entry with its arrays. Keeps book of what the adapter used.

    Whatever an adapter does not ask for is an argument, input or output that it does not know: the
    test fails on it rather than compare something else.
    """

    folder: Path
    entry: dict[str, Any]
    arrays: dict[str, np.ndarray]
    used: set[str] = field(default_factory=set)
    not_ours: dict[str, str] = field(default_factory=dict)
    absolute: dict[str, float] = field(default_factory=dict)  # tolerance of an output
    relative: dict[str, float] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return str(self.entry["id"])

    @property
    def repo(self) -> str:
        return str(self.entry["repo"])

    @property
    def file(self) -> str:
        return str(self.entry["file"])

    @property
    def function(self) -> str:
        return str(self.entry["function"])

    def arg(self, name: str, default: Any = REQUIRED) -> Any:
        """A scalar argument of the published function."""
        self.used.add(f"argument {name}")
        value = self.entry["args"].get(name, default)
        if value is REQUIRED:
            pytest.fail(f"{self.id}: argument '{name}' is missing")
        return value

    def descriptive(self, *names: str) -> None:
        """Arguments that say where the inputs came from and enter no formula."""
        self.used.update(f"argument {name}" for name in names)

    def choice(self, name: str, known: dict[Any, Any], default: Any = REQUIRED) -> Any:
        """An argument with known values, translated; any other value fails loudly."""
        value = self.arg(name, default)
        if value not in known:
            pytest.fail(f"{self.id}: {name} = {value!r} is unknown; known: {list(known)}")
        return known[value]

    def has(self, name: str) -> bool:
        return f"in_{name}" in self.arrays

    def tensor(self, name: str) -> torch.Tensor:
        """An input."""
        self.used.add(f"input {name}")
        return torch.from_numpy(np.array(self.arrays[f"in_{name}"]))

    def optional(self, name: str) -> torch.Tensor | None:
        return self.tensor(name) if self.has(name) else None

    def inputs(self, prefix: str = "") -> list[str]:
        return [name[3:] for name in self.arrays if name.startswith("in_" + prefix)]

    def unused_inputs(self, *names: str) -> None:
        """Inputs that the formula does not need."""
        self.used.update(f"input {name}" for name in names)

    def outside_core(self, name: str, reason: str) -> None:
        """An output that no function of ours defines."""
        self.not_ours[name] = reason

    def rounding(self, name: str, size: torch.Tensor, divisor: torch.Tensor) -> None:
        """Allow for published float32 arithmetic: an error of 4 eps `size`, divided by `divisor`.

        We take group statistics in float64; a library that does not has this error itself.
        """
        if self.arrays[f"out_{name}"].dtype == np.float32:
            eps = float(np.finfo(np.float32).eps)
            error = 4 * eps * float(size.abs().max()) / float(divisor.min())
            self.absolute[name] = max(1e-6, error)

    def near_a_clip(self, relative: float, *names: str) -> None:
        """A wider tolerance: one row may be on the other side of the clip range by rounding."""
        self.relative.update(dict.fromkeys(names, relative))

    def dtype(self) -> torch.dtype:
        """The dtype that the published function was called with."""
        name = str(self.arg("dtype", "torch.float32")).removeprefix("torch.")
        if name not in DTYPES:
            pytest.fail(f"{self.id}: dtype {name} is unknown")
        return DTYPES[name]

    def expected(self) -> dict[str, np.ndarray]:
        return {name[4:]: value for name, value in self.arrays.items() if name[:4] == "out_"}

    def unknown(self, answers: dict[str, Any]) -> list[str]:
        """What the adapter did not account for."""
        arguments = [f"argument {name}" for name in self.entry["args"]]
        inputs = [f"input {name}" for name in self.inputs()]
        outputs = [
            f"output {name}"
            for name in self.expected()
            if name not in answers and name not in self.not_ours
        ]
        return [item for item in arguments + inputs if item not in self.used] + outputs


def load_cases(folder: Path) -> list[Case]:
    """Every case of a folder with a `manifest.json` and its `.npz` files."""
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    cases = []
    for entry in manifest["cases"]:
        with np.load(folder / entry["npz"], allow_pickle=False) as stored:
            cases.append(Case(folder, entry, {name: stored[name] for name in stored.files}))
    return cases
