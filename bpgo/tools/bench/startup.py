"""How long each command takes before it works: imports, settings, models.

Cold in fresh processes; warm as a job of a workflow, whose server has imported all before.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bpgo.config.runs import Run, Sampler
from bpgo.errors import UserError
from bpgo.run.warm.folder import ColdError, close_folder, open_folder
from bpgo.run.warm.modules import COMMANDS as JOBS
from bpgo.storage.files import repository_root
from bpgo.tools.bench.measure import Seconds

REPEATS = 3
# Where the work of each command begins.
WORK = {
    "resolve": "bpgo.config.resolve:load",
    "prompts": "bpgo.scenes.captions:sample_captions",
    "fetch-prompts": "bpgo.steps.prompts:fetch",
    "draw": "bpgo.steps.draw:rollout",
    "calibrate": "bpgo.steps.calibrate:score_draws",
    "judge": "bpgo.steps.judge:score_table",
    "train": "bpgo.core.trainer:Trainer.run",
    "sample": "bpgo.steps.sample:sample",
    "sample-base": "bpgo.steps.sample:sample",
    "score": "bpgo.steps.stored_samples:StoredSamples.read",
    "collect": "bpgo.analysis.collect:collect",
    "statistics": "bpgo.analysis.statistics.compute:compute_statistics",
    "tables": "bpgo.analysis.tables.make:make_tables",
    "plots": "bpgo.analysis.figures.make:make_figures",
    "grids": "bpgo.analysis.grids:make_grids",
    "report": "bpgo.analysis.report:make_report",
    "pretrain": "bpgo.scenes.pretrain:pretrain_all",
    "bench": "bpgo.tools.bench.run:run_bench",
    "doctor": "bpgo.tools.doctor.run:examine",
    "plan": "bpgo.tools.planning.run:make_plan",
    "schema": "bpgo.tools.schema.command:schema_text",
}

# Given by hand, only by `snakemake trust`, or started as `sample` is.
NOT_TIMED = (
    *("groups", "rules", "track", "power", "agree", "paired", "simulate", "worlds"),
    "instrument",
    *("harm", "harm-base", "tune"),
)


def startup_seconds(
    commands: Iterable[str],
    arguments: dict[str, list[str]],
    repeats: int = REPEATS,
    kinds: Iterable[str] = (),
) -> dict[str, dict[str, Any]]:
    """Median wall and processor seconds by command, and of jobs of a workflow the same `warm`.

    Args:
        commands: keys of `WORK`.
        arguments: each command's options; a command absent from it gets `--output` only.
        repeats: starts of each; a warm one more, in which the server imports.
        kinds: of models, see `bpgo.run.warm.folder.Workflow`.
    """
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder, _server(kinds) as served:
        for command in commands:
            options = arguments.get(command, ["--output", str(Path(folder, "output"))])
            cold = [_once(command, options) for _ in range(repeats)]
            found[command] = _medians(cold)
            if served and command in JOBS:
                usage = Path(folder, "usage.tsv")
                warm = [_once(command, options, usage) for _ in range(repeats + 1)]
                found[command]["warm"] = _medians(warm[1:])
    return found


@contextmanager
def _server(kinds: Iterable[str]) -> Iterator[bool]:
    """Jobs started inside find a server; whether there can be one."""
    try:
        open_folder(sorted(kinds))
    except ColdError:
        yield False
        return
    try:
        yield True
    finally:
        close_folder()


def _medians(taken: list[Seconds]) -> dict[str, Any]:
    return {
        "wall_seconds": statistics.median(seconds.wall for seconds in taken),
        "cpu_seconds": statistics.median(seconds.cpu for seconds in taken),
    }


def _once(command: str, options: list[str], usage: Path | None = None) -> Seconds:
    """One start; `usage` is where a job writes what its process took."""
    root = str(repository_root())
    paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    line = ["-m", "bpgo.tools.bench.until_work", WORK[command], command, *options]
    if usage is not None:
        line = ["-S", "-m", "bpgo.run.job", "--benchmark", str(usage), "python", *line]
    start = time.perf_counter()
    with subprocess.Popen(  # noqa: S603 (our own command line)
        [sys.executable, *line],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        said = process.stderr.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - start
    if process.returncode != 0:
        raise UserError(f"bench: '{command}' did not come to its work: {said.strip()}")
    elsewhere = float(usage.read_text().split()[-1]) if usage is not None else 0.0
    return Seconds(wall, used.ru_utime + used.ru_stime + elsewhere)


def options_of(files: dict[str, Path], run: Run, sampler: Sampler) -> dict[str, Any]:
    """The options of each command that needs more than `--output`.

    `files` has the paths `configfile`, `config` (resolved), `train` and `evaluation` (prompts),
    `draws`, `calibration`, `trained`, `samples` and `output`; `sampler` draws the calibration.
    """
    config = ["--config", str(files["config"])]
    output = ["--output", str(files["output"])]
    experiment = [*config, "--experiment", run.experiment]
    seed = [*experiment, "--seed", str(run.seed), *output]
    train = ["--prompts", str(files["train"])]
    evaluation = ["--prompts", str(files["evaluation"])]
    nowhere = str(files["output"])
    configfile = ["--configfile", str(files["configfile"])]
    made = [*config, "--statistics", nowhere, *output]
    drawn = ["--draws", str(files["draws"])]
    calibration = ["--calibration", str(files["calibration"])]
    return {
        "resolve": [*configfile, *output],
        "bench": [*configfile, *output],
        "doctor": configfile,
        "plan": configfile,
        "prompts": [*config, "--split", "train", *output],
        "fetch-prompts": ["--configfile", str(files["configfile"])],
        "draw": [*config, "--sampler", sampler.name, *train, *output],
        "calibrate": [*experiment, *train, *drawn, *output],
        "judge": [*experiment, *train, *drawn, *calibration, *output],
        "train": [*seed, "--arm", run.arm, *train, *calibration],
        "sample": [*seed, "--arm", run.arm, *evaluation, "--run", str(files["trained"])],
        "sample-base": [*config, "--seed", str(run.seed), *evaluation, *output],
        "score": [*seed, "--arm", "base", "--samples", str(files["samples"])],
        "collect": [*config, "--root", nowhere, *output],
        "statistics": [*config, "--collected", nowhere, *output],
        "tables": made,
        "plots": [*made, "--collected", nowhere],
        "grids": [*config, "--samples-root", nowhere, *output],
        "report": [*made, "--tables", nowhere, "--figures", nowhere],
    }
