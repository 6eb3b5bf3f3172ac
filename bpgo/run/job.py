"""A job's command: `python -S -m bpgo.run.job [--gpus COUNT] [--benchmark FILE] COMMAND ...`.

As a job of Snakemake, `python -m bpgo ...` is done by a process that a server forks
(`bpgo.run.warm`); any other command, or without a server, by a process of its own. Standard
streams, exit code and signals are the command's; it ends at once if this process is killed. FILE
gets what the command took (`bpgo.run.usage`) once it has succeeded: Snakemake's own `benchmark:`
would not see the process that does the job. With GPUs the command is launched on them
(`bpgo.run.launch`).

Needs no packages, so Python may leave them out of its start (-S).
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time

from bpgo.run.launch import launched
from bpgo.run.usage import Spent, Usage
from bpgo.run.warm.call import STOPPING, ServerGoneError, WarmJob
from bpgo.run.warm.folder import ColdError, Workflow

TYPE_CHECKING = False  # that of typing takes longer to import than all else here
if TYPE_CHECKING:
    from types import FrameType
    from typing import NoReturn

SET_PARENT_DEATH_SIGNAL, SET_NAME = 1, 15  # PR_SET_PDEATHSIG and PR_SET_NAME of Linux
# What a server does: our commands; and them until their work begins, which the benchmark times.
SERVED = ("bpgo", "bpgo.tools.bench.until_work")
AGAIN = 75  # EX_TEMPFAIL: run the same command again
NOT_FOUND = 127  # as shells say it
FIRST_LOOK, LAST_LOOK = (
    0.25,
    30.0,
)  # seconds between looks at a job's memory, twice as long each time


class ColdJob:
    """A running job in a process of its own, of which this one is the parent."""

    def __init__(self, command: list[str]) -> None:
        self._reader, writer = os.pipe()
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer)  # readable when a signal comes, so at the end of the child
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        parent = os.getpid()
        self.process = os.fork()
        self._ended = False
        if self.process == 0:
            try:
                os.setpgid(0, 0)  # a terminal's signals come through this process, once
                end_with(parent)
                become(command)
            finally:
                os._exit(NOT_FOUND)

    def fileno(self) -> int:
        """Readable when the job may have ended."""
        return self._reader

    def send(self, number: int) -> None:
        """Send the process a signal."""
        if not self._ended:
            os.kill(self.process, number)  # until it is waited for, its number is nobody else's

    def result(self) -> Spent | None:
        """What it took, if it has ended."""
        os.read(self._reader, 4096)
        found, status, used = os.wait4(self.process, os.WNOHANG)
        if not found:
            return None
        self._ended = True
        peak = used.ru_maxrss // (1024 if sys.platform == "darwin" else 1)
        seconds = used.ru_utime + used.ru_stime
        return Spent(status, seconds, peak, used.ru_inblock, used.ru_oublock)


def become(command: list[str]) -> NoReturn:
    """Be that command."""
    try:
        os.execvp(command[0], command)  # noqa: S606
    except OSError as error:
        print(f"error: {command[0]}: {error.strerror}", file=sys.stderr, flush=True)
        sys.exit(NOT_FOUND)


def end_with(parent: int) -> None:
    """Ask Linux to kill this process when its parent ends."""
    if sys.platform != "linux":
        return
    process_control(SET_PARENT_DEATH_SIGNAL, int(signal.SIGKILL))
    if os.getppid() != parent:
        os._exit(1)


def process_control(option: int, value: object) -> None:
    """Linux's prctl."""
    import ctypes

    ctypes.CDLL(None).prctl(option, value)


def warm_job(command: list[str]) -> WarmJob | None:
    """The job as its server does it; None where it has none, with one line if it should have."""
    if command[:2] != ["python", "-m"] or command[2] not in SERVED:
        return None
    try:
        workflow = Workflow.of_this_job()
        return WarmJob(command[2:], workflow) if workflow else None
    except (ColdError, OSError) as error:
        print(f"no warm start, the job imports all by itself: {error}", file=sys.stderr, flush=True)
        return None


def follow(job: WarmJob | ColdJob, usage: Usage) -> Spent:
    """Hand on signals and look at the job's memory until it ends."""

    def hand_on(number: int, _frame: FrameType | None) -> None:
        job.send(number)

    def pause(_number: int, _frame: FrameType | None) -> None:
        job.send(signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)
        job.send(signal.SIGCONT)  # whoever continues this process continues the job

    for number in STOPPING:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, hand_on)
    signal.signal(signal.SIGTSTP, pause)
    wait, due = FIRST_LOOK, time.monotonic() + FIRST_LOOK
    while True:
        ready, _, _ = select.select([job], [], [], max(0.0, due - time.monotonic()))
        if ready and (spent := job.result()) is not None:
            return spent
        if time.monotonic() >= due:
            usage.look(job.process)
            wait = min(2 * wait, LAST_LOOK)
            due = time.monotonic() + wait


def end_like(status: int) -> int:
    """The exit code of a process that ended so; dies of the signal that it died of."""
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the other one has left a core already
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


def main(arguments: list[str]) -> int:
    """Do the job; its exit code."""
    started = time.monotonic()
    options = {"--gpus": "0", "--benchmark": ""}
    while arguments[0] in options:
        name, options[name], *arguments = arguments
    benchmark = options["--benchmark"]
    arguments = launched(int(options["--gpus"]), arguments)
    job: WarmJob | ColdJob | None = warm_job(arguments)
    if job is None:
        if not benchmark:
            become(arguments)
        job = ColdJob(arguments)
    usage = Usage()
    try:
        spent = follow(job, usage)
    except ServerGoneError:
        print("error: the process that served this job has ended: run it again", file=sys.stderr)
        return AGAIN
    if benchmark and spent.status == 0:
        usage.write(benchmark, time.monotonic() - started, spent)
    return end_like(spent.status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
