"""How long each command takes before it works: imports, settings, models, in fresh processes."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bpgo.config.runs import Run, Sampler
from bpgo.errors import UserError
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
    "schema": "bpgo.config.settings:Settings.model_json_schema",
}


def startup_seconds(
    commands: Iterable[str], arguments: dict[str, list[str]], repeats: int = REPEATS
) -> dict[str, dict[str, float]]:
    """Median wall and processor seconds by command.

    `arguments` gives each command's options; a command absent from it gets `--output` only.
    """
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for command in commands:
            options = arguments.get(command, ["--output", str(Path(folder, "output"))])
            taken = [_once(command, options) for _ in range(repeats)]
            found[command] = {
                "wall_seconds": statistics.median(seconds.wall for seconds in taken),
                "cpu_seconds": statistics.median(seconds.cpu for seconds in taken),
            }
    return found


def _once(command: str, options: list[str]) -> Seconds:
    root = str(repository_root())
    paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-m", "bpgo.tools.bench.until_work", WORK[command], command, *options]
    start = time.perf_counter()
    with subprocess.Popen(  # noqa: S603 (our own command line)
        line, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        said = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - start
    if process.returncode != 0:
        raise UserError(f"bench: '{command}' did not come to its work: {said.strip()}")
    return Seconds(wall, usage.ru_utime + usage.ru_stime)


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
