"""What a call of Snakemake does before its first job and after its last."""

import signal
import threading
from collections import Counter

from bpgo.analysis.same_code import refuse_mixed
from bpgo.run.code import code_of, digest_of_code, save_code
from bpgo.run.manifest import read_manifest
from bpgo.run.run_results import result_of, seconds_before, share_of
from bpgo.run.warm import folder as warm_folder
from bpgo.run.watch import TimeLeft, Watch
from bpgo.run.workflow_lock import hold, let_go, remove_stale_locks
from bpgo.storage.seals import again, read_sealed
from snakemake.logging import logger as snakemake_logger

WATCH = []  # what shows this call, while its jobs run


def missing_runs():
    """A line for each run that a report of this call has to do without."""
    if workflow.touch:  # files are made without content where there were none
        return []
    reports = {job.wildcards_dict["root"] for job in workflow.dag.jobs if job.rule.name == "report"}
    return [
        f"{root}: {entry['experiment']}/{entry['arm']}/seed_{entry['seed']}: {entry['reason']}"
        for root in sorted(reports & set(OWN))
        for entry in read_sealed(Path(root, "collected", "runs.json"), again("collect"))["missing"]
    ]


def allowing_mixed():
    """What the user adds to this call, so that runs of different code are joined."""
    if target := os.getenv("BPGO_MAKE"):
        return f'make {target} SNAKEMAKE_OPTIONS="--config allow_mixed=true"'
    return "snakemake ... --config allow_mixed=true"


def check_stored_runs():
    """An end before any job where `collect`, whose outputs Snakemake deletes, would refuse them."""
    if ALLOW_MIXED.lower() == "true" or workflow.touch or not workflow.is_main_process:
        return
    planned = list(workflow.dag.needrun_jobs())
    for root in {job.wildcards.root for job in planned if job.rule.name == "collect"}:
        settings, found = settings_of(root), {}
        ours = [job for job in planned if job.rule.name == "train" and job.wildcards.root == root]
        for run in [run_of(job.wildcards_dict) for job in ours]:
            code = code_of(settings, run)
            found[run] = {
                "config_digest": settings.run_digest(run),
                "code_digest": digest_of_code(code),
                "code": code,
            }
        for run in settings.runs():
            path = Path(root, "runs", run.folder, "manifest.json")
            try:
                if run not in found and path.is_file():
                    found[run] = read_manifest(path, "remove the run, and it is trained again")
            except UserError as error:
                fail(error)
        try:
            refuse_mixed(settings, Path(root), found, allowing_mixed())
        except UserError as error:
            fail(error)


def save_code_of_runs():
    """Let training runs of this call see whether their code was edited since it started."""
    if workflow.touch or not workflow.is_main_process:
        return
    planned = [job.wildcards for job in workflow.dag.needrun_jobs() if job.rule.name == "train"]
    for root in {wildcards.root for wildcards in planned}:
        arms = {(each.experiment, each.arm): each for each in planned if each.root == root}
        if ALLOW_MIXED.lower() == "true":
            arms = {}
        codes = [code_of(settings_of(root), run_of(each)) for each in arms.values()]
        save_code(codes, Path(root, "config", "code.json"))


def start_warm():
    """Let the jobs that this process starts find a server; its start is the first one's."""
    if WARM.lower() == "false" or not workflow.is_main_process or workflow.non_local_exec:
        return
    jobs = [settings_of(root) for root in {*OWN, *REBUILT} & roots_of_jobs()]
    full = all(settings.training.parameters == "full" for settings in jobs)
    full = full and not any(each.lora for settings in jobs for each in settings.policies.values())
    kinds = {settings.model.kind for settings in jobs} if full else set()
    try:
        warm_folder.open_folder(sorted(kinds))
    except warm_folder.ColdError as error:
        print(f"no warm start, each job imports all by itself: {error}", file=sys.stderr)


def watched():
    """What `make` shows of this call: what runs now, the time left, each finished run's result.

    None where Snakemake was called by hand, or asked to say more.
    """
    quiet = not os.getenv("BPGO_MAKE") or workflow.output_settings.verbose or workflow.touch
    if quiet or not workflow.is_main_process:
        return None
    roots = set(OWN) & roots_of_jobs()
    before = [seconds_before(root) for root in roots]
    rules = {rule for each in before for rule in each}
    times = {rule: [s for each in before for s in each.get(rule, [])] for rule in rules}
    planned = Counter(job.rule.name for job in workflow.dag.needrun_jobs())
    watch = Watch(
        TimeLeft(planned, times),
        lambda rule, words: result_of(rule, words, settings_of),
        lambda rule, words: share_of(rule, words, settings_of),
    )
    watch.follow(snakemake_logger)
    return watch


def end_watch():
    """Before the last lines of the call."""
    if WATCH:
        WATCH.pop().end()


def finish_what_runs():
    """Let the first Ctrl-C, or a closed terminal, end this call as SIGTERM does; a second one at once.

    Snakemake waits for its jobs after Ctrl-C too, but takes no note of those that succeed then: they
    would be done again. Jobs of a cluster are cancelled, as ever.
    """
    graceful = signal.getsignal(signal.SIGTERM)
    if not workflow.is_main_process or workflow.non_local_exec or not callable(graceful):
        return

    def stop(number, frame):
        signal.signal(number, signal.default_int_handler)
        # It waits for a lock that this thread may hold.
        threading.Thread(target=graceful, args=(number, frame), daemon=True).start()

    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) == signal.default_int_handler:  # not where it is ignored
            signal.signal(number, stop)


# Before the first job a closed terminal ends Snakemake as Ctrl-C does: it takes its lock away.
if workflow.is_main_process and signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:
    signal.signal(signal.SIGHUP, signal.default_int_handler)
if workflow.is_main_process and remove_stale_locks(Path(".snakemake")):
    print("removed Snakemake's lock: the process that held it has ended", file=sys.stderr)


onstart:
    check_stored_runs()
    if workflow.is_main_process:
        hold(Path(".snakemake"))
    for root in set(OWN) & roots_of_jobs():
        if not settings_path(root).exists():
            save_resolved(settings_of(root), settings_path(root))
    save_given_file()
    save_code_of_runs()
    if ALLOCATOR_PROBLEM and workflow.is_main_process:
        print(ALLOCATOR_PROBLEM, file=sys.stderr)
    start_warm()
    finish_what_runs()
    if watch := watched():
        WATCH.append(watch)


onerror:
    end_watch()
    let_go(Path(".snakemake"))
    warm_folder.close_folder()


onsuccess:
    end_watch()
    let_go(Path(".snakemake"))
    warm_folder.close_folder()
    for root in sorted({*OWN, *REBUILT} & roots_of_jobs()):
        for page in (f"{root}/report/index.html", f"{root}/trust/index.html"):
            if Path(page).exists():
                print(f"Report: {page}", file=sys.stderr)
        for pattern in ("tables/*.md", "figures/*.png", "grids/*.png", "grids/*.webp"):
            for file in sorted(Path(root).glob(pattern)):
                print(f"  {file}", file=sys.stderr)
    if missing := missing_runs():
        fail("\n  ".join(["tables and report are made, but without these runs:", *missing]))
