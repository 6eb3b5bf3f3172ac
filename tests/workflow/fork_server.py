"""`python -m PROGRAM` without its start-up: the imports are made once, each call is a fork.

usage: python fork_server.py snakemake|bpgo

Reads one JSON object a line: `arguments`, `folder`, `environment`, `output` (a file). Answers with
the number of the process, which leads a group of its own, and at its end with its exit code.
"""

from __future__ import annotations

import json
import os
import sys
from importlib import import_module
from typing import Any

# Where `main` is, and what most calls import late.
PROGRAMS = {
    "snakemake": [
        "snakemake.cli",
        "snakemake.executors.local",
        "snakemake.report.html_reporter",
        "snakemake.workflow",
        "bpgo.analysis",  # by the Snakefile
        "bpgo.config",
    ],
    "bpgo": [
        "bpgo.cli",
        "bpgo.config",
        "bpgo.prompts",
        "bpgo.evaluation.calibrate",
        "bpgo.training",
    ],
}


def call(program: Any, request: dict[str, Any]) -> None:
    """Become `python -m PROGRAM ARGUMENTS`, as far as anything can tell."""
    os.setsid()
    output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for number, file in enumerate((os.open(os.devnull, os.O_RDONLY), output, output)):
        os.dup2(file, number)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    sys.argv = [program.__file__, *request["arguments"]]
    program.main()


def forked(program: Any, request: dict[str, Any]) -> int:
    """Start the call; its process number."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        call(program, request)
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


def main() -> None:
    """Serve until the input ends."""
    program, *_ = [import_module(name) for name in PROGRAMS[sys.argv[1]]]
    for line in sys.stdin:
        child = forked(program, json.loads(line))
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
