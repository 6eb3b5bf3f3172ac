"""Score samples by the rewards of one software environment."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from bpgo.config import contents
from bpgo.config.jobs import score_digest
from bpgo.config.runs import Run
from bpgo.config.settings import Settings
from bpgo.core.rollout import chunks
from bpgo.core.scoring import HELD, decoded_shape, samples_for
from bpgo.errors import NonFiniteError, RunError, UserError
from bpgo.records import Calibration, PromptBatch
from bpgo.rewards.shared.tokens import cut_texts
from bpgo.run.progress import Progress
from bpgo.steps import loading
from bpgo.steps.finished_scores import FinishedScores
from bpgo.steps.stored_samples import StoredSamples, UnreadableSampleError, digests_of
from bpgo.steps.sums import with_sums
from bpgo.storage.tables import read_table, write_table

KEYS = ["prompt_id", "ambiguity", "sample", "iteration"]


def score_run(
    settings: Settings,
    run: Run,
    samples: Path,
    environment: str,
    output: Path,
    threads: int = 1,
    calibration: Path | None = None,
) -> None:
    """Write one row per (sample, reward): experiment, arm, seed, `KEYS`, reward, score, cut.

    `cut`: the prompt is longer than the reward reads.

    The rewards are loaded and called one after the other. Where one fails, the others go on, and
    their scores wait beside `output` for the next try; `output` holds all rewards or is not there.
    Of a weighted sum the parts have rows too; `calibration` has their scales.

    Raises:
        UserError: if the samples or one of their files cannot be read, naming the file; if a
            reward cannot be loaded or called.
        NonFiniteError: naming the reward and prompt.
    """
    loading.check_run(settings, run)
    names = settings.in_environment(run.experiment, environment)
    if not names:
        known = ", ".join(settings.environments_of(run.experiment))
        raise UserError(f"--environment: no reward runs in '{environment}'. Known: {known}")
    index = _read_index(samples, contents.samples(settings, run))
    of = contents.scores(settings, run, environment)
    if index.empty:  # the run failed
        columns = [*asdict(run), *KEYS, "reward", "score", "cut"]
        write_table(pd.DataFrame(columns=columns), output, of)
        return
    anchor = None
    if any(settings.rewards[name].needs_calibration for name in names):
        anchor = _read_calibration(calibration, contents.scales(settings, run.experiment))
    models = settings.models_of(names)
    torch.set_num_threads(threads)
    stored, size = _stored(settings, samples, index)
    finished = FinishedScores(output, samples, score_digest(settings, run, environment))
    parts = chunks(len(index), size)
    failures: dict[str, Exception] = {}
    with Progress(f"{run.folder}: score", len(models) * len(parts)) as progress:
        for name in models:
            if name in finished:
                progress.add(len(parts))
                continue
            try:
                finished[name] = _score(settings, name, index, stored, parts, progress)
            except UnreadableSampleError:
                raise
            except (UserError, RunError, torch.OutOfMemoryError) as error:
                failures[name] = _explained(name, error)
    if failures:
        raise _joined(failures, [name for name in models if name in finished])
    texts = index.text.tolist()
    frames = [
        index[KEYS].assign(reward=name, score=finished[name], cut=cut_texts(settings, name, texts))
        for name in models
    ]
    table = with_sums(settings, names, pd.concat(frames, ignore_index=True), anchor)
    for place, (name, value) in enumerate(asdict(run).items()):
        table.insert(place, name, value)
    write_table(table, output, of)
    finished.remove()


def _stored(settings: Settings, samples: Path, index: pd.DataFrame) -> tuple[StoredSamples, int]:
    """The samples, and how many are read at a time: of clips no more than the memory takes."""
    paths, digests = index.path.tolist(), digests_of(index)
    size = settings.evaluation.batch_size
    if settings.model.makes == "image":
        return StoredSamples(samples, paths, digests=digests), size
    shape = decoded_shape(settings.model)
    size = min(size, max(1, HELD // math.prod(shape)))
    return StoredSamples(samples, paths, shape, digests), size


def _score(
    settings: Settings,
    name: str,
    index: pd.DataFrame,
    stored: StoredSamples,
    parts: list[slice],
    progress: Progress,
) -> np.ndarray:
    """Scores [N] float32 by one reward, which is freed again."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    reward = loading.load_rewards(settings, [name], device)[name]
    prompts = _prompts(index, stored.folder)
    found: list[Tensor] = []
    for rows in parts:
        pixels = stored.read(rows).to(device).float() / 255
        scores = reward(samples_for(pixels, prompts[rows], settings.model))
        found.append(scores.float().cpu())
        progress.add(1)
    values: np.ndarray = torch.cat(found).numpy()
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        row = index.iloc[int(bad[0])]
        raise NonFiniteError(
            f"reward '{name}' gives {values[bad[0]]} for prompt '{row.prompt_id}' ({row.path})"
        )
    return values


def _prompts(index: pd.DataFrame, folder: Path) -> PromptBatch:
    """The prompt of each sample."""
    frames = [folder / path for path in index.first_frame] if "first_frame" in index else None
    ids, texts, ambiguities = (index[k].tolist() for k in ("prompt_id", "text", "ambiguity"))
    return PromptBatch(ids, texts, ambiguities, frames)


def _explained(name: str, error: Exception) -> Exception:
    if isinstance(error, torch.OutOfMemoryError):
        return UserError(
            f"reward '{name}': the GPU's memory is full: lower its batch_size"
            f" (overrides.rewards.{name}.batch_size in the configuration)"
        )
    return error


def _joined(failures: dict[str, Exception], kept: list[str]) -> Exception:
    """One error for all that failed, each reason once; what is kept is said too."""
    lines = list(dict.fromkeys(str(error) for error in failures.values()))
    if kept:
        lines.append(f"The scores by {', '.join(kept)} are kept for the same command's next try")
    kinds = {type(error) for error in failures.values()}
    return (kinds.pop() if len(kinds) == 1 else UserError)("\n".join(lines))


def _read_calibration(path: Path | None, of: str) -> Calibration:
    if path is None:
        raise UserError("--calibration: a sum of standardized rewards needs it")
    return Calibration.load(path, of)


def _read_index(samples: Path, of: str) -> pd.DataFrame:
    path = samples / "index.parquet"
    index = read_table(path, "run `sample` again", of=of)
    for column in [*KEYS, "text", "path"]:
        if column not in index:
            raise UserError(f"{path}: has no column '{column}'; run `sample` again")
        if index[column].isna().any():
            row = int(index[column].isna().to_numpy().argmax()) + 1
            raise UserError(f"{path}: row {row} has no {column}; run `sample` again")
    twice = index.duplicated(list(KEYS))
    if twice.any():
        first = index[twice].iloc[0]
        what = ", ".join(f"{key} {first[key]}" for key in KEYS)
        raise UserError(f"{path}: has {what} twice; run `sample` again")
    return index
