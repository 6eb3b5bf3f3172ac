"""`python -m PROGRAM` without its start-up: the imports are made once, each call is a fork.

usage: python fork_server.py snakemake|bpgo SOCKET

SOCKET is the number of a socket that listens; the calls come from `fork_client.py`. The server ends
when its input does. A call whose client is gone is killed, with what it started.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import sys
import threading
from contextlib import suppress
from importlib import import_module
from typing import Any

# Where `main` is, and what most calls import late. With all of diffusers loaded, its lean import
# (bpgo/run/lean_import.py) is left to the jobs that other tests start.
PROGRAMS = {
    "snakemake": [
        "snakemake.cli",
        "snakemake.executors.local",
        "snakemake.report.html_reporter",
        "snakemake.workflow",
        "bpgo.analysis",  # by the Snakefile
        "bpgo.config.resolve",
    ],
    "bpgo": [
        "bpgo.cli",
        "bpgo.config.resolve",
        "bpgo.steps.prompts",
        "bpgo.steps.draw",
        "bpgo.steps.calibrate",
        "bpgo.steps.judge",
        "bpgo.steps.sample",
        "bpgo.steps.score",
        "bpgo.steps.train",
        "bpgo.analysis.collect",
        "bpgo.analysis.figures.make",
        "bpgo.analysis.grids",
        "bpgo.analysis.report",
        "bpgo.analysis.statistics.compute",
        "bpgo.analysis.tables.make",
        "pyarrow.dataset",
        "bpgo.models.flux",
        "bpgo.models.wan",
        "bpgo.scenes.image.reward_models",
        "torch._dynamo",
        "torch.distributed.tensor",
        "torch.utils.tensorboard",
        "diffusers.models.transformers",
        "diffusers.models.autoencoders",
        "diffusers.loaders.lora_pipeline",
        "diffusers.pipelines.wan.pipeline_wan",
        "transformers.models.t5.modeling_t5",
        "transformers.models.umt5.modeling_umt5",
        "transformers.models.clip.modeling_clip",
    ],
}


def become(program: Any, request: dict[str, Any], files: list[int]) -> None:
    """Be `python -m PROGRAM ARGUMENTS`, as far as anything can tell; lead a process group."""
    os.setsid()
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    sys.argv = [program.__file__, *request["arguments"]]
    sys.executable = request.get("executable", sys.executable)
    program.main()


def forked(program: Any, request: dict[str, Any], files: list[int]) -> int:
    """Start the call; its process number."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        become(program, request, files)
        code = 0
    except SystemExit as error:
        if error.code is not None and not isinstance(error.code, int):
            print(error.code, file=sys.stderr)
        else:
            code = error.code or 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def serve(program: Any, connection: socket.socket) -> None:
    """One call: read it, start it, answer with its number and, at its end, its exit code."""
    _, files, *_ = socket.recv_fds(connection, 1, 3)
    request = json.loads(connection.makefile("rb").readline())
    child = forked(program, request, files)
    connection.sendall(f"{child}\n".encode())
    threading.Thread(target=kill_without, args=(connection, child), daemon=True).start()
    _, status = os.waitpid(child, 0)
    connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())


def kill_without(connection: socket.socket, child: int) -> None:
    """Kill the call when its client is gone."""
    with suppress(OSError):
        connection.recv(1)
        os.killpg(child, signal.SIGKILL)


def main() -> None:
    listener = socket.socket(fileno=int(sys.argv[2]))
    program, *_ = [import_module(name) for name in PROGRAMS[sys.argv[1]]]
    gc.freeze()  # a fork that looks for garbage would copy all of it
    while True:
        ready, _, _ = select.select([sys.stdin, listener], [], [])
        if sys.stdin in ready:
            return
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            with suppress(OSError):  # the client is gone
                serve(program, connection)
            os._exit(0)
        connection.close()
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


if __name__ == "__main__":
    main()
