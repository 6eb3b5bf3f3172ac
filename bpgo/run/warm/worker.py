"""The forked process: becomes what `python -m bpgo ...` would be for the job, and ends so."""

from __future__ import annotations

import atexit
import gc
import os
import runpy
import signal
import socket
import sys
import threading
from typing import Any, NoReturn

from bpgo.run.job import SET_NAME, end_with, process_control

FAILED, NOT_WRITTEN = 1, 120  # Python's exit codes: after an exception; if output cannot be written


def work(
    server: int,
    request: dict[str, Any],
    connection: socket.socket,
    files: list[int],
    own: list[int],
) -> NoReturn:
    """Do the job and end.

    Args:
        server: the parent's process, without which there is no job.
        request: see `bpgo.run.warm.call.request_of_this_process`.
        connection: the job's; its first byte says that it waits for this process.
        files: the job's standard input, output and error.
        own: descriptors of the server, which are not for the job.
    """
    code = FAILED
    try:
        _take_over(server, request, connection, files, own)
        code = _run(request["command"][0])
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        if code < 0:
            signal.signal(-code, signal.SIG_DFL)
            os.kill(os.getpid(), -code)
        os._exit(code)


def _take_over(
    server: int,
    request: dict[str, Any],
    connection: socket.socket,
    files: list[int],
    own: list[int],
) -> None:
    """Be like a process that the job's shell has started."""
    os.setsid()
    end_with(server)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number in request["ignored"]:
        signal.signal(number, signal.SIG_IGN)
    for descriptor in own:
        os.close(descriptor)
    connection.settimeout(None)
    if not connection.recv(1):
        os._exit(FAILED)
    connection.close()
    for number, file in enumerate(files):
        os.dup2(file, number)
    for file in files:
        os.close(file)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=stream is sys.stderr or stream.isatty())  # type: ignore[union-attr]
    os.environ.clear()
    os.environ.update(request["environment"])
    os.umask(request["umask"])
    os.chdir(request["folder"])
    sys.argv = list(request["command"])
    process_control(SET_NAME, " ".join(sys.argv[:2]).encode())  # for `top`
    gc.enable()


def _run(module: str) -> int:
    """The exit code of `python -m MODULE`; -N if Python would end by signal N."""
    code = 0
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as error:
        code = _code_of(error)
    except KeyboardInterrupt:
        sys.excepthook(*sys.exc_info())
        code = -signal.SIGINT
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = FAILED
    # As at the end of a process, but without taking all modules apart.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        code = code or NOT_WRITTEN
    return code


def _code_of(error: SystemExit) -> int:
    if error.code is None or isinstance(error.code, int):
        return error.code or 0
    print(error.code, file=sys.stderr)
    return FAILED
