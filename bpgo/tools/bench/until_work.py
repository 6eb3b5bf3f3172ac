"""Run one command until its work begins, then end the process at once.

`python -m bpgo.tools.bench.until_work MODULE:FUNCTION COMMAND ARGUMENTS...`: the function named is
where the command's work begins. Called by `bpgo.tools.bench.startup`, in a process of its own.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from runpy import run_module
from typing import NoReturn

NEVER_BEGAN = 3  # exit code


def _begin_work(*_arguments: object, **_named: object) -> NoReturn:
    os._exit(0)


def main() -> None:
    """Replace the function by one that ends the process, and run the command."""
    where, *arguments = sys.argv[1:]
    module, _, path = where.partition(":")
    *owners, name = path.split(".")
    place = import_module(module)
    for owner in owners:
        place = getattr(place, owner)
    getattr(place, name)
    setattr(place, name, _begin_work)
    sys.argv = ["bpgo", *arguments]
    run_module("bpgo", run_name="__main__")


if __name__ == "__main__":
    main()
    sys.exit(NEVER_BEGAN)
