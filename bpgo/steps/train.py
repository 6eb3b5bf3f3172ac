"""One training run, from files to files."""

from __future__ import annotations

import math
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from bpgo.config import contents
from bpgo.config.runs import Run
from bpgo.config.settings import BASE_ARM, Settings
from bpgo.core.trainer import Trainer
from bpgo.errors import DIVERGED, RunError, UserError
from bpgo.models.embeddings import prompt_embeddings
from bpgo.records import Calibration
from bpgo.run import processes
from bpgo.run.checkpoint import discard_failed, mark_failed
from bpgo.run.code import check_code, code_of, digest_of_code
from bpgo.run.manifest import manifest
from bpgo.run.processes import Processes
from bpgo.run.progress import read_lines
from bpgo.steps import loading
from bpgo.steps.kept_policies import policy_digests
from bpgo.steps.prompts import read_prompts
from bpgo.storage.seals import write_sealed
from bpgo.storage.tables import write_table


def train(
    settings: Settings,
    run: Run,
    prompts: Path,
    calibration: Path,
    output: Path,
    threads: int = 1,
    record: bool = False,
    before: Path | None = None,
) -> None:
    """Train one arm with one seed; resumes by itself from the newest checkpoint in `output`.

    With `record`, a run that diverges is no error: its manifest says why it `failed`, and the
    comparison of the others goes on without it. With `before`, the code as the workflow's call
    started, a run of code that was edited since is refused.

    Writes `policy/`, `snapshots/`, `metrics.parquet`, `rollouts.parquet` and, last,
    `manifest.json`; then the checkpoints are removed. See `bpgo.core.trainer.Trainer.run` for what
    is raised.
    """
    loading.check_run(settings, run)
    if run.arm == BASE_ARM:
        raise UserError(f"--arm: '{BASE_ARM}' is the untrained policy; it cannot be trained")
    if before is not None:
        check_code(settings, run, before)
    group = processes.start()
    device = loading.prepare_process(settings, threads)
    trainer = build_trainer(settings, run, prompts, calibration, output, device, group)
    code = code_of(settings, run)  # as it is now; a file may be edited while the run trains
    entries: dict[str, Any] = {**asdict(run), "device": device, "threads": threads}
    entries |= {"code_digest": digest_of_code(code), "code": code}
    with group.together():
        if group.main:
            discard_failed(output / "state", settings.run_digest(run))
    try:
        trainer.run()
    except RunError as error:
        if not record or error.exit_code != DIVERGED:
            raise
        if group.main:
            print(f"the run failed: {error}", file=sys.stderr)
            mark_failed(output / "state")
            _finish(settings, run, output, trainer, {**entries, "failed": str(error)})
        group.close()
        return
    trainer.save_policy(output / "policy")
    if group.main:
        _finish(settings, run, output, trainer, {**entries, "files": policy_digests(output)})
        # A finished run has nothing to resume; its state would only refuse later settings.
        shutil.rmtree(output / "state", ignore_errors=True)
    group.close()


def _finish(
    settings: Settings,
    run: Run,
    output: Path,
    trainer: Trainer,
    entries: dict[str, Any],
) -> None:
    """Tables and, last, the manifest with these and further `entries`."""
    _write_tables(settings, run, output)
    write_sealed(
        output / "manifest.json",
        manifest(
            **entries,
            config_digest=settings.run_digest(run),
            wall_seconds=trainer.wall_seconds,
            processes=trainer.processes.count,
        ),
        contents.training(settings, run, "manifest"),
    )


def build_trainer(
    settings: Settings,
    run: Run,
    prompts: Path,
    calibration: Path,
    output: Path,
    device: str,
    group: Processes | None = None,
) -> Trainer:
    """The trainer of one run, with the base policy, the rewards and the prompts it needs."""
    group = group or Processes()
    chosen, own = settings.experiments[run.experiment], settings.of_arm(run.arm)
    with group.together():
        batch = read_prompts(prompts, own.rollout.prompts_per_iteration)
        anchor = Calibration.load(calibration, contents.calibration(settings, run.experiment))
        policy = loading.load_policy(own, device, run.seed)
        names = [chosen.training_reward, *chosen.diagnostics]
        rewards = loading.load_rewards(settings, names, device, anchor)
        embeddings = prompt_embeddings(policy, batch, loading.embedding_cache(prompts))
        trainer = Trainer(
            own,
            policy,
            loading.load_arm(own, run.arm),
            rewards[chosen.training_reward],
            {name: rewards[name] for name in chosen.diagnostics},
            batch,
            embeddings,
            anchor,
            run.seed,
            output,
            settings.run_digest(run),
            title=run.folder,
            processes=group,
        )
    return trainer  # noqa: RET504 (mypy sees no return inside the block)


def _write_tables(settings: Settings, run: Run, output: Path) -> None:
    rows = [row for entry in read_lines(output / "rollouts.jsonl") for row in _rows(entry)]
    for name, entries in (("metrics", read_lines(output / "metrics.jsonl")), ("rollouts", rows)):
        of = contents.training(settings, run, name)
        write_table(pd.DataFrame(entries), output / f"{name}.parquet", of)


def _rows(entry: dict[str, Any]) -> list[dict[str, Any]]:
    """One line of `rollouts.jsonl` as one row per sample."""
    rows = []
    for group, prompt in enumerate(entry["prompt_id"]):
        for sample, reward in enumerate(entry["reward"][group]):
            row = {
                "iteration": entry["iteration"],
                "prompt_id": prompt,
                "ambiguity": entry["ambiguity"][group],
                "sample": sample,
                "reward": reward,
                "advantage": entry["advantage"][group][sample],
                "prior": math.nan,
                "weight": math.nan,
            }
            row |= {name: rows[group][sample] for name, rows in entry["diagnostics"].items()}
            row |= {name: column[group] for name, column in entry["groups"].items()}
            rows.append(row)
    return rows
