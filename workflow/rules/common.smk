"""Settings, checked before any rule loads, and the few functions that the rules share."""

import json
import os
import re
import sys
from functools import cache
from inspect import signature
from pathlib import Path
from shlex import quote

from bpgo.analysis import COLLECTED, FIGURES, SINCE, TABLES
from bpgo.config.resolve import load, load_resolved, save_resolved
from bpgo.config import given_files, jobs
from bpgo.config.options import WORKFLOW_OPTIONS, check_options
from bpgo.config.runs import Run
from bpgo.config.tuning import TUNE
from bpgo.errors import UserError
from bpgo.run import machine
from bpgo.run.allocator import allocator_variables
from bpgo.storage.files import text_digest
from bpgo.config.settings import BASE_ARM, Settings

# Options of the workflow, not settings: --config root=results/mine keeps results apart; allow_mixed
# joins runs of different code; warm=false starts jobs from nothing; pretrain_seed names a set of weights.
ROOT, ALLOW_MIXED, WARM, PRETRAIN_SEED = (
    str(config.get(key, default)) for key, default in WORKFLOW_OPTIONS.items()
)
SMOKE = f"{ROOT}/smoke"
# Configurations beside this call's, by results folder: the video world's tasks, and every arm's worlds.
VIDEO, ARM_SMOKE = (
    {f"{ROOT}/{name}": Path(workflow.basedir, "config", f"{name}.yaml") for name in names}
    for names in (("scenes_t2v", "scenes_i2v"), ("smoke_arms", "smoke_arms_t2v"))
)
VIDEO_SMOKE = {f"{root}/smoke": file for root, file in VIDEO.items()}
# Equal tuning: this call's configuration, if it has a search; else the file beside it, or the shipped one.
TUNED, TUNE_FILE = f"{ROOT}/tuning", Path(workflow.configfiles[0]).parent / TUNE
TUNING = {TUNED: TUNE_FILE if TUNE_FILE.is_file() else Path(workflow.basedir, "config", TUNE)}
if config.get("tune"):
    TUNED, TUNING = ROOT, {}
BESIDE = VIDEO | VIDEO_SMOKE | ARM_SMOKE | TUNING
REFERENCE = "results/reference"  # our published runs; REBUILT: their tables and figures, made again
AGAIN = ("second_seeds", "second_machine", "second_world")  # of one run, in its folder
REBUILT = {
    os.path.normpath(f"results/reference_rebuilt/{part}"): os.path.normpath(f"{REFERENCE}/{part}")
    for run in (".", "scenes_t2v", "scenes_i2v")
    for part in (run, *(os.path.join(run, again) for again in AGAIN))
    if Path(REFERENCE, part, "config.yaml").exists()
}
OWN = (ROOT, SMOKE, *BESIDE)  # what this call's configurations make
ROOTS = "|".join(re.escape(root) for root in (*OWN, *REBUILT))

# No rule makes this file. What asks for it cannot be made, so Snakemake takes what is there.
NEVER_MADE = f"{ROOT}/from stored scores nothing is trained or sampled"
EVERY_CORE = 1024  # Snakemake takes no more than --cores

# Jobs use the Python that runs Snakemake, or that of their own environment, and this clone's
# packages. Snakemake takes PYTHONPATH away from a job with an environment, so the shell sets it.
os.environ.update(
    PATH=os.pathsep.join([os.path.dirname(sys.executable), os.getenv("PATH", os.defpath)])
)


def fail(message):
    """End the program with one message, before any job."""
    sys.exit(f"error: {message}")


def check_clone():
    """Where the workflow lies."""
    if re.search("[{}]", str(workflow.basedir)):
        fail(
            f"the clone's path, '{workflow.basedir}', holds a brace, which Snakemake takes for a"
            " wildcard: rename that folder, or put the clone elsewhere"
        )


@cache
def settings_of(root):
    """The settings that make, or made, the results below `root`, checked."""
    try:
        if root in REBUILT:
            return load_resolved(Path(REBUILT[root], "config.yaml"))
        scale = "smoke" if root in (SMOKE, *VIDEO_SMOKE) else "full"
        if root in (ROOT, SMOKE):  # read again: Snakemake's reading lets mistakes pass
            return load(configfiles_of(root), scale, GIVEN)
        file = BESIDE[root]
        refuse_given(f"{root}, which {file} makes", f"name it beside --configfile {file}")
        return load(file, scale)
    except UserError as error:
        fail(error)


def configfiles_of(root):
    """The configuration files of `root`, as `Path`s; the first one's folder holds the named files."""
    return [BESIDE[root]] if root in BESIDE else [Path(each) for each in workflow.configfiles]


def check_gpus(wildcards):
    """No file, but an end before any job where GPUs are too few or too small for a training run.

    Snakemake cuts a job's request down to the limit, without a word.
    """
    wanted = training_gpus(wildcards)
    limit, jobs, one_machine = (
        workflow.global_resources.get(name).value for name in ("gpu", "_nodes", "one_machine")
    )
    if jobs and one_machine:
        fail(
            "profiles/default: its limit of one GPU would hold for the whole cluster. Give the"
            " cluster's profile as --workflow-profile, not as --profile, so that it takes its place"
        )
    if workflow.is_main_process and limit is not None and wanted > limit:
        fail(
            f"machine.gpus: a training run asks for {wanted} GPUs, but Snakemake may use {limit}:"
            f" add --resources gpu={wanted}, or as many GPUs as the machine has"
        )
    if workflow.is_main_process and wanted and not jobs:  # a cluster has other GPUs
        if refused := memory_refused(wildcards.root):
            fail(refused)
    return []


@cache
def memory_refused(root):
    """What of the experiments does not fit the GPUs of this machine, if an arm is the reason."""
    from bpgo.tools.planning.further import further_policies_refused  # for runs on GPUs alone

    return further_policies_refused(settings_of(root), machine.gpus())


include: "given.smk"


check_clone()
for checked in (ROOT, SMOKE):  # a mistake shows before any job
    settings_of(checked)
try:
    check_options(config)  # by --config too
except UserError as error:
    fail(error)

# Without GPUs the C library keeps the memory that a job frees. Beside a GPU it would keep the host's
# copy of a model that has moved there.
ALLOCATOR, ALLOCATOR_PROBLEM = ({}, "") if settings_of(ROOT).machine.gpus else allocator_variables()
EXPORTS = "".join(f" export {name}={quote(value)};" for name, value in ALLOCATOR.items())
# A cluster that ends a job early sends SIGTERM to all of its processes, a terminal SIGINT (Ctrl-C) or
# SIGHUP (closed). The shell must outlive its command, which saves what it has; otherwise the job
# counts as ended and the command is killed.
shell.prefix(
    "set -euo pipefail; trap : TERM INT HUP;{EXPORTS}"
    " export PYTHONPATH={workflow.basedir:q}${{PYTHONPATH:+:$PYTHONPATH}}; "
)


@cache
def settings_path(root):
    """Where the resolved settings of `root` lie: named by their digest, never overwritten."""
    if root in REBUILT:
        return Path(REBUILT[root], "config.yaml")
    return Path(root, "config", f"{settings_of(root).digest()}.yaml")


def settings_file(wildcards):
    """The resolved settings as a `Path`.

    Snakemake compares parameters between runs, but not those of a type it cannot write down, such
    as a `Path`. What a change of settings reruns is decided by `digest` parameters alone.
    """
    return settings_path(wildcards.root)


def training_gpus(wildcards):
    """GPUs of a training run; one process each."""
    return settings_of(wildcards.root).machine.gpus


def one_gpu(wildcards):
    """A GPU for a job of one process, where the experiment uses GPUs."""
    return min(1, training_gpus(wildcards))


def draw_digest(wildcards):
    settings = settings_of(wildcards.root)
    [sampler] = [each for each in settings.samplers() if each.name == wildcards.sampler]
    return jobs.draw_digest(settings, sampler)


def calibration_digest(wildcards):
    return jobs.calibration_digest(settings_of(wildcards.root), wildcards.experiment)


def judging_digest(wildcards):
    return jobs.judging_digest(settings_of(wildcards.root), wildcards.experiment)


def run_of(wildcards):
    """A run; where a job is of no experiment, the untrained policy."""
    values = dict(wildcards)
    return Run(values.get("experiment", ""), values.get("arm", BASE_ARM), int(values["seed"]))


def run_digest(wildcards):
    return settings_of(wildcards.root).run_digest(run_of(wildcards))


def sample_digest(wildcards):
    return jobs.sample_digest(settings_of(wildcards.root), run_of(wildcards))


def harm_digest(wildcards):
    return jobs.harm_digest(settings_of(wildcards.root), run_of(wildcards))


def score_digest(wildcards):
    settings = settings_of(wildcards.root)
    return jobs.score_digest(settings, run_of(wildcards), wildcards.environment)


def from_stored_scores():
    """Whether the call asks for `figures`: nothing is trained, sampled or collected for them."""
    return "figures" in workflow.dag_settings.targets


def draws_of(wildcards):
    """The base policy's samples of training prompts that an experiment is calibrated on."""
    sampler = settings_of(wildcards.root).sampler_of(wildcards.experiment)
    return f"{wildcards.root}/draws/{sampler.name}/draws.json"


def policy_of(wildcards):
    """A trained run's manifest, written when the run is whole; a file of a policy that was given."""
    if from_stored_scores():
        return NEVER_MADE
    run, settings = run_of(wildcards), settings_of(wildcards.root)
    if run.arm in settings.policies:
        return str(min(given_files.files_of(settings.policies[run.arm])))
    return f"{wildcards.root}/runs/{run.folder}/manifest.json"


def evaluation_prompts(wildcards):
    """What the untrained policy is sampled on."""
    return NEVER_MADE if from_stored_scores() else f"{wildcards.root}/prompts/evaluation.jsonl"


def samples_of(wildcards):
    """A run's samples; those of the untrained policy serve every experiment."""
    folder = jobs.samples_folder(run_of(wildcards), settings_of(wildcards.root))
    return f"{wildcards.root}/samples/{folder}/index.parquet"


def scales_of(wildcards):
    """The parts' scales, where a reward of this environment is a sum of standardized ones."""
    settings = settings_of(wildcards.root)
    names = settings.in_environment(wildcards.experiment, wildcards.environment)
    if not any(settings.rewards[name].needs_calibration for name in names):
        return []
    return f"{wildcards.root}/calibration/{wildcards.experiment}/scales.json"


def given_scales(wildcards, input):
    """How `score` gets them."""
    return ["--calibration", input.calibration] if input.calibration else []


def collectable(wildcards):
    """Scores, runs and calibrations: what `collect` joins."""
    if from_stored_scores():
        return {"scores": NEVER_MADE}
    root, settings = wildcards.root, settings_of(wildcards.root)
    names = ("manifest.json", "metrics.parquet", "rollouts.parquet")
    return {
        "scores": [
            f"{root}/scores/{run.folder}/{environment}.parquet"
            for run in jobs.scored_runs(settings)
            for environment in settings.environments_of(run.experiment)
        ],
        "runs": [f"{root}/runs/{run.folder}/{name}" for run in settings.runs() for name in names],
        "calibration": [
            f"{root}/calibration/{name}/samples.parquet" for name in settings.experiments
        ],
        "harm": measured_files(root),
    }


@cache
def analysis_code():
    """Digest of the analysis: editing it draws tables and figures anew, and trains nothing."""
    files = sorted(Path(workflow.basedir, "bpgo", "analysis").rglob("*"))
    texts = [
        file.read_text(encoding="utf-8")
        for file in files
        if file.suffix in (".py", ".html", ".j2", ".css")
    ]
    return text_digest("".join(texts))


def analysis_digest(wildcards):
    """What decides the tables and figures, apart from the scores themselves."""
    return f"{settings_of(wildcards.root).digest()} {analysis_code()}"


def collected_folder(root):
    """Where the scores of all runs lie, joined."""
    return f"{REBUILT.get(root, root)}/collected"


def stored_scores(wildcards):
    """The files on which the whole analysis depends; some may lack in stored scores."""
    files = {name: f"{collected_folder(wildcards.root)}/{name}.parquet" for name in COLLECTED}
    may_lack = SINCE if wildcards.root in REBUILT or from_stored_scores() else ()
    return [file for name, file in files.items() if name not in may_lack or os.path.exists(file)]


def measured_files(root):
    """What is measured of every run beside its scores, and of the untrained policy."""
    runs = jobs.measured_runs(settings_of(root))
    folders = dict.fromkeys(jobs.harm_folder(run) for run in runs)
    return [f"{root}/harm/{folder}.parquet" for folder in folders]


def sample_files(root):
    """The index of every run's samples."""
    settings = settings_of(root)
    runs = jobs.scored_runs(settings)
    folders = dict.fromkeys(jobs.samples_folder(run, settings) for run in runs)
    return [f"{root}/samples/{folder}/index.parquet" for folder in folders]


def has_grids(root):
    """Grids need samples: where only scores are stored, they are left out."""
    if root in REBUILT:
        return False
    return not from_stored_scores() or all(map(os.path.exists, sample_files(root)))


def products(*roots):
    """What people read: reports, tables, figures and grids."""
    made = []
    for root in roots:
        made.append(f"{root}/report/index.html")
        made += [f"{root}/tables/{name}.csv" for name in TABLES]
        made += [f"{root}/figures/{name}.png" for name in FIGURES]
        made += [f"{root}/grids"] if has_grids(root) else []
    return made


def stored_products(target, folder, *roots):
    """The same from scores that are stored in `folder`; an end where there are none."""
    if not Path(folder, "collected", "scores.parquet").exists():
        fail(
            f"{target}: there are no stored scores in {folder}/collected. Make them with"
            " `snakemake --cores all`; `snakemake --cores all reference` shows published ones"
        )
    return products(*roots)


def roots_of_jobs():
    """Where the jobs of this call write."""
    return {job.wildcards_dict.get("root") for job in workflow.dag.jobs}


# Snakemake asks what a function takes, several times for each job. The rules that have a job for
# each run use these: with an answer at hand a thousand runs are planned in a tenth less time.
for asked in (
    *(settings_file, one_gpu, training_gpus, check_gpus, policy_of, samples_of),
    *(scales_of, given_scales, run_digest, sample_digest, harm_digest, score_digest),
):
    asked.__signature__ = signature(asked)


include: "start_and_end.smk"
