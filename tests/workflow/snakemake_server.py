"""Snakemake without its start-up: the imports are made once, each call is a fork.

Reads one JSON object a line: `arguments`, `folder`, `environment`, `output` (a file). Answers with
the number of the process, which leads a group of its own, and at its end with its exit code.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import snakemake.cli

# What the Snakefile imports; the modules of Snakemake that a run imports late.
import snakemake.executors.local
import snakemake.report.html_reporter
import snakemake.workflow

import bpgo.analysis
import bpgo.config  # noqa: F401


def call(request: dict[str, Any]) -> None:
    """Become `python -m snakemake ARGUMENTS`, as far as anything can tell."""
    os.setsid()
    output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for number, file in enumerate((os.open(os.devnull, os.O_RDONLY), output, output)):
        os.dup2(file, number)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    sys.argv = [snakemake.cli.__file__, *request["arguments"]]
    snakemake.cli.main()


def forked(request: dict[str, Any]) -> int:
    """Start the call; its process number."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        call(request)
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
    for line in sys.stdin:
        child = forked(json.loads(line))
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
