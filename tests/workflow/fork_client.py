"""Calls of programs that a fork server has loaded.

usage: python fork_client.py ADDRESS ARGUMENTS...

Imports little: as a program it starts in a twentieth of a second, and stands for the one it calls.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from typing import Any

PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


class Call:
    """A running call; it is killed when this object's connection closes before its end.

    Args:
        address: of the server's socket.
        request: `arguments`, `folder`, `environment`; `executable`, if `sys.executable` is another.
        files: its standard input, output and error.
    """

    def __init__(self, address: str, request: dict[str, Any], files: tuple[int, int, int]) -> None:
        self.connection = socket.socket(socket.AF_UNIX)
        self.connection.connect(address)
        socket.send_fds(self.connection, [b"!"], files)
        self.connection.sendall(json.dumps(request).encode() + b"\n")
        self._answers = self.connection.makefile("r")
        self.process = int(self._answers.readline())

    def wait(self, seconds: float | None = None) -> int:
        """Its exit code, -N after signal N; `TimeoutError` if it does not end in time."""
        self.connection.settimeout(seconds)
        return int(self._answers.readline())


def main() -> int:
    address, *arguments = sys.argv[1:]
    folder = os.getcwd()  # noqa: PTH109  pathlib takes as long to import as all the rest
    request = {"arguments": arguments, "folder": folder, "environment": dict(os.environ)}
    call = Call(address, request, (0, 1, 2))
    for number in PASSED_ON:
        signal.signal(number, lambda number, _frame: os.kill(call.process, number))
    code = call.wait()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
