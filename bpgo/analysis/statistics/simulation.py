"""How often intervals hold and bold cells lie, on made-up runs with measured variances.

Every drawn table has columns with arms that are all equal, so every bold cell is false. Columns of
a table are drawn independently. Methods: `pooled t` (a difference declared beforehand), `Dunnett`
(what tables show), `two arms, t` (without the other arms), `bootstrap` (the check column).
Collapsing runs fall by a fixed depth: in every arm alike, where the arms are still equal, or in one
arm, whose true difference is then share times depth.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from bpgo.analysis.statistics.bootstrap import Bootstrap, Floats
from bpgo.analysis.statistics.repeated import RepeatedMeasures
from bpgo.errors import UserError, suggest
from bpgo.seeding import numpy_generator

COMPONENTS = Path(__file__).with_name("components.yaml")
STEADY, EVERY_ARM, ONE_ARM = "none", "in every arm", "in one arm"
METHODS = ("pooled t", "Dunnett", "two arms, t", "bootstrap")
CONFIDENCE = 0.95
SIMULATED = [
    *("metric", "seeds", "collapse", "method", "tables", "half_width", "coverage"),
    *("false_cell", "false_column", "false_table"),
]


@dataclass(frozen=True)
class Component:
    """Variance components of a difference of two arms (see components.yaml)."""

    arms: int
    prompts: int
    run: float
    prompt: float
    interaction: float


@dataclass(frozen=True)
class Size:
    """How much is drawn: of each number of seeds so many tables of so many columns."""

    tables: int = 100
    columns: int = 5
    seeds: tuple[int, ...] = (3, 5, 10)
    metrics: tuple[str, ...] = ("image_oracle", "t2v_oracle")
    resamples: int = 1000


@cache
def components() -> tuple[dict[str, Component], float, float]:
    """The measured components by metric, the share of runs that collapse, and how far they fall."""
    values: dict[str, Any] = yaml.safe_load(COMPONENTS.read_text(encoding="utf-8"))
    found = {name: Component(**entry) for name, entry in values["metrics"].items()}
    return found, values["collapse"]["share"], values["collapse"]["depth"]


def draw(
    random: np.random.Generator, component: Component, seeds: int, collapse: str = STEADY
) -> Floats:
    """[A, S, P] scores of arms without any true difference, but for runs that collapse.

    With `in one arm` the runs of the second arm alone collapse.
    """
    shape = (component.arms, seeds, component.prompts)
    # A difference has twice an arm's variance.
    scores = random.normal(0, np.sqrt(component.interaction / 2), shape)
    scores += random.normal(0, np.sqrt(component.run / 2), (*shape[:2], 1))
    if component.prompt:
        scores += random.normal(0, np.sqrt(component.prompt / 2), (shape[0], 1, shape[2]))
    _, share, depth = components()
    falls = random.random(shape[:2]) < share
    if collapse == ONE_ARM:
        falls[np.arange(shape[0]) != 1] = False
    return scores - (depth * falls[..., None] if collapse != STEADY else 0.0)


def simulate(size: Size, seed: int = 0) -> pd.DataFrame:
    """One row per metric, number of seeds, kind of collapse and method.

    `coverage`: share of the intervals of an arm less the first that hold the true difference; with
    `in one arm` of that arm's. `half_width`: their mean half. `false_cell`, `false_column`,
    `false_table`: share of the cells, of the columns and of the tables with a cell whose interval
    excludes zero; NaN with `in one arm`, where a difference is true.

    Raises:
        UserError: an unknown metric.
    """
    known = components()[0]
    for name in size.metrics:
        if name not in known:
            raise UserError(
                f"{COMPONENTS.name}: metrics: there is no '{name}'.{suggest(name, known)}"
                f" Known: {', '.join(known)}"
            )
    bootstrap = Bootstrap(size.resamples, CONFIDENCE, seed)
    rows = []
    for name in size.metrics:
        for seeds in size.seeds:
            for collapse in (STEADY, EVERY_ARM, ONE_ARM):
                random = numpy_generator(seed, "simulate", name, seeds, collapse)
                limits = np.stack(
                    [
                        _limits(draw(random, known[name], seeds, collapse), bootstrap)
                        for _ in range(size.tables * size.columns)
                    ]
                )
                labels = {"metric": name, "seeds": seeds, "collapse": collapse}
                rows += [labels | row for row in _judged(limits, collapse, size)]
    return pd.DataFrame(rows, columns=SIMULATED)


def _limits(scores: Floats, bootstrap: Bootstrap) -> Floats:
    """[methods, A - 1, 2] intervals of every arm less the first."""
    arms = len(scores)
    runs = {str(arm): dict(enumerate(scores[arm])) for arm in range(arms)}
    pooled = RepeatedMeasures(runs)
    # Kept apart, an arm's differences have a variance of their own.
    apart = RepeatedMeasures(runs, apart=list(runs))
    checks = bootstrap.mean(scores[1:] - scores[0])
    found = np.empty((len(METHODS), arms - 1, 2))
    for arm in range(1, arms):
        contrast = pooled.contrast(str(arm), "0")
        intervals = (
            contrast.interval(CONFIDENCE),
            contrast.interval(CONFIDENCE, arms - 1),
            apart.contrast(str(arm), "0").interval(CONFIDENCE),
        )
        found[:3, arm - 1] = [(one.low, one.high) for one in intervals]
    found[3] = np.stack([checks.low, checks.high], axis=-1)
    return found


def _judged(limits: Floats, collapse: str, size: Size) -> list[dict[str, Any]]:
    """Rows by method from [N, methods, A - 1, 2] limits; N are the tables' columns in a row."""
    _, share, depth = components()
    rows = []
    for place, method in enumerate(METHODS):
        low, high = limits[:, place, :, 0], limits[:, place, :, 1]
        bold = (low > 0) | (high < 0)
        columns = bold.any(axis=1)
        row = {
            "method": method,
            "tables": size.tables,
            "half_width": float((high - low).mean() / 2),
            "coverage": float(1 - bold.mean()),
            "false_cell": float(bold.mean()),
            "false_column": float(columns.mean()),
            "false_table": float(columns.reshape(size.tables, size.columns).any(axis=1).mean()),
        }
        if collapse == ONE_ARM:
            truth = -share * depth
            held = (low[:, 0] <= truth) & (truth <= high[:, 0])
            row |= {"coverage": float(held.mean())}
            row |= {"half_width": float((high - low)[:, 0].mean() / 2)}
            row |= dict.fromkeys(("false_cell", "false_column", "false_table"), np.nan)
        rows.append(row)
    return rows
