"""Run a Python script, and end without Python's clean-up, in which py-rattler sometimes crashes.

usage: python run_script.py SCRIPT ARGUMENTS...
"""

from __future__ import annotations

import os
import runpy
import sys
import traceback


def main() -> int:
    sys.argv = sys.argv[1:]
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as error:
        if not isinstance(error.code, str):
            return error.code or 0
        print(error.code, file=sys.stderr)
        return 1
    except Exception:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
