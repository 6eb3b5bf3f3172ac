"""A job's call of its server: starts the server if it is the first, hands over all that it has.

Imports little, so that a job is with its server in a twentieth of a second.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import sys
from contextlib import suppress

from bpgo.run.usage import Spent
from bpgo.run.warm.folder import ColdError, Workflow, name_of_server

TYPE_CHECKING = False  # that of typing takes longer to import than all else here
if TYPE_CHECKING:
    from typing import Any

PATIENCE = 60.0  # seconds for the server's first answer; it may import all of torch before
LISTENER = 3  # the server's descriptor of its socket
LENGTH = 4  # bytes before a request that say how long it is
STOPPING = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)


class ServerGoneError(Exception):
    """The server has ended, and with it the process that did the job."""


class WarmJob:
    """A running job whose process the server has forked.

    Args:
        command: a module and its arguments, as `python -m` takes them.
        workflow: whose job it is.

    Raises:
        ColdError: if no server takes it; nothing has been done for it then.
        OSError: likewise.
    """

    def __init__(self, command: list[str], workflow: Workflow) -> None:
        self._connection = _connected(workflow)
        self._connection.settimeout(PATIENCE)
        try:
            _send(self._connection, request_of_this_process(command))
            answer = _receive(self._connection)
            if answer is None or "process" not in answer:
                raise ColdError((answer or {}).get("why", "its server ended"))
            self.process: int = answer["process"]
            # Until now it has waited, so that a job which gives up here is not done twice.
            self._connection.sendall(b"!")
        except TimeoutError:
            raise ColdError(f"its server did not answer within {PATIENCE:.0f} s") from None
        except ConnectionError:
            raise ColdError("its server ended") from None
        self._connection.settimeout(None)
        self._ended = False

    def fileno(self) -> int:
        """Readable when the job has ended."""
        return self._connection.fileno()

    def send(self, number: int) -> None:
        """Send the process a signal."""
        if not self._ended:
            with suppress(ProcessLookupError):  # it has ended, the answer is on its way
                os.kill(self.process, number)

    def result(self) -> Spent:
        """Wait for its end.

        Raises:
            ServerGoneError: if the server ended before it.
        """
        try:
            answer = _receive(self._connection)
        except ConnectionError:
            answer = None
        self._ended = True
        if answer is None:
            raise ServerGoneError
        return Spent(**answer)


def request_of_this_process(command: list[str]) -> dict[str, Any]:
    """All of this process that the other one must have."""
    umask = os.umask(0)
    os.umask(umask)
    return {
        "command": command,
        "folder": os.getcwd(),  # noqa: PTH109
        "environment": dict(os.environ),
        "umask": umask,
        "ignored": [number for number in STOPPING if signal.getsignal(number) == signal.SIG_IGN],
    }


def _send(connection: socket.socket, request: dict[str, Any]) -> None:
    """The length with standard input, output and error; then the request as JSON."""
    data = json.dumps(request).encode()
    socket.send_fds(connection, [len(data).to_bytes(LENGTH, "big")], (0, 1, 2))
    connection.sendall(data)


def _receive(connection: socket.socket) -> dict[str, Any] | None:
    """One line of JSON; None if the connection is closed before its end."""
    data = b""
    while not data.endswith(b"\n"):
        if not (part := connection.recv(4096)):
            return None
        data += part
    answer: dict[str, Any] = json.loads(data)
    return answer


def _connected(workflow: Workflow) -> socket.socket:
    opened = workflow.enter()
    try:
        address = f"/proc/self/fd/{opened}/{name_of_server()}"
        connection = _connect(address)
        if connection is None:
            lock = os.open(f"{address}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)  # jobs that come together start one
                connection = _connect(address) or _start(address)
            finally:
                os.close(lock)
        return connection
    finally:
        os.close(opened)


def _connect(address: str) -> socket.socket | None:
    """A connection; None if there is no server, or no longer."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(PATIENCE)
    try:
        connection.connect(address)
    except (FileNotFoundError, ConnectionRefusedError):
        connection.close()
        return None
    return connection


def _start(address: str) -> socket.socket:
    """Start the server, with a socket that listens already: nobody waits for it to come up."""
    if os.path.lexists(address):
        os.unlink(address)  # noqa: PTH108
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen(socket.SOMAXCONN)
        listener.set_inheritable(True)
        log = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        os.posix_spawn(
            sys.executable,
            [sys.executable, "-m", "bpgo.run.warm.server"],
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, f"{address}.log", log, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
                (os.POSIX_SPAWN_DUP2, listener.fileno(), LISTENER),
            ],
            setsigdef=STOPPING,
        )
    connection = _connect(address)
    if connection is None:
        raise ColdError("its server did not start")
    return connection
