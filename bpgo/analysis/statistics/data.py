"""The collected files as dense arrays."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bpgo.analysis import COLLECTED, SINCE
from bpgo.analysis.roles import arms_of
from bpgo.config.settings import BASE_ARM, Settings
from bpgo.errors import UserError
from bpgo.storage.files import sha256
from bpgo.storage.seals import Kinds, again, read_sealed
from bpgo.storage.tables import read_arrow

Floats = NDArray[np.float64]
NEEDED: Kinds = {"config_digest": str, "missing": list, "runs": list}  # of runs.json
KINDS: Kinds = {"cut_prompts": dict, "expected_runs": int, "files": dict, "scale": str}


@dataclass(frozen=True, eq=False)
class Scores:
    """The scores of one experiment.

    `cube` is [arms, seeds, iterations, rewards, P prompts, K samples]; NaN where a policy was not
    scored. The same (seed, prompt, sample) means the same initial noise for every arm, so any two
    arms pair entry by entry. Iteration 0 of every arm is the base policy. A run's final scores are
    the means over its last `final_stages` scored iterations; of a `given` policy there is one.
    """

    experiment: str
    arms: list[str]
    seeds: list[int]
    iterations: list[int]
    rewards: list[str]
    prompts: list[str]
    cube: Floats
    final_stages: int = 1
    given: tuple[str, ...] = ()

    @property
    def trained(self) -> list[str]:
        """Arms that have a course: neither the base policy nor a given one."""
        return [arm for arm in self.arms if arm != BASE_ARM and arm not in self.given]

    @property
    def final(self) -> int:
        """The last scored iteration."""
        return self.iterations[-1]

    @cached_property
    def curve_prompts(self) -> NDArray[np.intp]:
        """Indices of the prompts scored at every snapshot (all of them without snapshots)."""
        inner = self.cube[:, :, 1:-1]
        if inner.shape[2] == 0 or not np.isfinite(inner).any():
            return np.arange(len(self.prompts))
        return np.flatnonzero(np.isfinite(inner).any(axis=(0, 1, 2, 3, 5)))

    def has(self, arm: str, reward: str) -> bool:
        """Whether at least one seed of the arm was judged by the reward at the end."""
        return bool(self.seeds_of(arm, reward))

    def seeds_of(self, arm: str, reward: str, iteration: int | None = None) -> list[int]:
        """Seeds of the arm with scores at an iteration (by default where the arm ends)."""
        if arm not in self.arms or reward not in self.rewards:
            return []
        table = self._table(arm, reward, self.end(arm) if iteration is None else iteration)
        known = [bool(np.isfinite(part).any()) for part in table]
        return [seed for seed, there in zip(self.seeds, known, strict=True) if there]

    def end(self, arm: str) -> int:
        """The iteration at which an arm is judged: 0 for the base policy."""
        return 0 if arm == BASE_ARM else self.final

    def values(
        self, arm: str, reward: str, seeds: list[int], iteration: int | None = None
    ) -> Floats:
        """[S, P, K] scores of an arm; by default the final ones, on all prompts.

        At an inner iteration prompts are the curve's.

        Raises:
            UserError: a run was scored on a part of the prompts only.
        """
        at = self.end(arm) if iteration is None else iteration
        stages = [at]
        if iteration is None and at != 0 and arm not in self.given:
            stages = [step for step in self.iterations if step > 0][-self.final_stages :]
        own = [self.seeds.index(seed) for seed in seeds]
        # The order of the sum is fixed: equal scores give equal bits.
        table = sum(self._table(arm, reward, step)[own] for step in stages) / len(stages)
        table = np.asarray(table)
        if iteration is not None and at not in (0, self.final):
            table = table[:, self.curve_prompts]
        if not np.isfinite(table).all():
            scored = int(np.isfinite(table).sum())
            places = ", ".join(map(str, stages))
            raise UserError(
                f"scores of {self.experiment}/{arm} at iteration {places} by {reward}: {scored} of"
                f" {table.size} samples are scored; score these runs again"
            )
        return table

    def _table(self, arm: str, reward: str, iteration: int) -> Floats:
        place = BASE_ARM if iteration == 0 else arm
        if place not in self.arms or iteration not in self.iterations:
            return np.full((len(self.seeds), *self.cube.shape[-2:]), np.nan)
        where = (self.arms.index(place), slice(None), self.iterations.index(iteration))
        return np.asarray(self.cube[(*where, self.rewards.index(reward))])


@dataclass(frozen=True)
class Collected:
    """The collected files and the account of what is missing; `harm` may be empty."""

    scores: dict[str, Scores]
    metrics: pd.DataFrame
    groups: pd.DataFrame
    calibration: pd.DataFrame
    runs: dict[str, Any]
    harm: pd.DataFrame = field(default_factory=pd.DataFrame)

    def harm_of(self, experiment: str) -> pd.DataFrame:
        """The rows of one experiment."""
        return self.harm[self.harm["experiment"] == experiment] if len(self.harm) else self.harm


def load_collected(settings: Settings, folder: Path) -> Collected:
    """Read `folder`; runs of arms or rewards that the configuration does not name are left out.

    Raises:
        UserError: a file is missing, a score is not finite or stands there twice.
    """
    folder = Path(folder)
    runs = read_account(folder)
    digests = runs.pop("files", {})
    there = [
        name
        for name in COLLECTED
        if name not in SINCE or f"{name}.parquet" in digests or _path(folder, name).is_file()
    ]
    frames = {name: _read(_path(folder, name), digests) for name in there}
    scores = {
        experiment: _scores(settings, experiment, frames["scores"])
        for experiment in settings.experiments
    }
    return Collected(
        {name: entry for name, entry in scores.items() if entry.arms},
        frames["metrics"],
        frames["groups"],
        frames["calibration"],
        runs,
        frames.get("harm", pd.DataFrame()),
    )


def read_account(folder: Path) -> dict[str, Any]:
    """The collection's runs.json; without one it is empty, which is said.

    Scores alone are enough for statistics, and show which runs are missing. `files` has the digests
    of the other files, if this or a later version has collected them.

    Raises:
        UserError: the file is cut, changed, or an entry is missing or of another type.
    """
    path = Path(folder) / "runs.json"
    if path.is_file():
        return read_sealed(path, again("collect"), needs=NEEDED, may=KINDS)
    print(
        f"missing: {path}: why runs are missing is not known, nor whether the tables beside it are"
        f" as they were collected; {again('collect')}",
        file=sys.stderr,
    )
    return {}


def _path(folder: Path, name: str) -> Path:
    return folder / f"{name}.parquet"


def _read(path: Path, digests: dict[str, Any]) -> pd.DataFrame:
    """Parquet with text columns as categories (fast to compare and group)."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; run `collect` first")
    if path.name in digests and sha256(path) != digests[path.name]:
        raise UserError(
            f"{path}: was changed after it was collected (by its digest in runs.json);"
            f" {again('collect')}"
        )
    try:
        schema = pq.read_schema(path)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path}: cannot be read as Parquet: {error}") from None
    texts = [
        f.name for f in schema if pa.types.is_string(f.type) or pa.types.is_large_string(f.type)
    ]
    return read_arrow(path, "run `collect` again", read_dictionary=texts).to_pandas()


def _scores(settings: Settings, experiment: str, frame: pd.DataFrame) -> Scores:
    arms, rewards = arms_of(settings, experiment), settings.rewards_of(experiment)
    chosen = frame[
        (frame["experiment"] == experiment)
        & frame["arm"].isin(arms)
        & frame["reward"].isin(rewards)
    ]
    score = chosen["score"].to_numpy(np.float64)
    if not np.isfinite(score).all():
        row = chosen[~np.isfinite(score)].iloc[0]
        raise UserError(
            f"scores of {experiment}/{row['arm']}/seed_{row['seed']}: {row['reward']} on prompt"
            f" {row['prompt_id']} is {row['score']}"
        )
    axes: list[list[Any]] = []
    codes = []
    wanted = {"arm": arms, "reward": rewards}
    for column in ("arm", "seed", "iteration", "reward", "prompt_id", "sample"):
        present = set(chosen[column].unique())
        labels = [v for v in wanted.get(column, sorted(present)) if v in present]
        axes.append(labels)
        codes.append(pd.Index(labels).get_indexer(pd.Index(chosen[column].to_numpy())))
    shape = tuple(len(labels) for labels in axes)
    flat = np.ravel_multi_index(codes, shape) if len(chosen) else np.empty(0, np.intp)
    if len(np.unique(flat)) != len(flat):
        raise UserError(f"scores of {experiment}: some samples are scored twice by one reward")
    cube = np.full(shape, np.nan)
    cube.ravel()[flat] = score
    arms, seeds, iterations, rewards, prompts = axes[:5]
    stages = settings.analysis.final_stages
    given = tuple(settings.policies)
    return Scores(experiment, arms, seeds, iterations, rewards, prompts, cube, stages, given)
