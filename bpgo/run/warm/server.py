"""The server: imports once what jobs need, and forks a process for each.

Started by the first job (`bpgo.run.warm.call`), as a program with a socket that listens. It has one
thread, and does nothing with torch but import it: only then is a fork like a fresh process. It
ends what it has forked, by SIGTERM, and itself when Snakemake has ended or removed the folder.
"""

from __future__ import annotations

import gc
import json
import os
import select
import shutil
import signal
import socket
import struct
import time
import traceback
from contextlib import suppress
from typing import Any

from bpgo.run.warm import modules
from bpgo.run.warm.call import LENGTH, LISTENER
from bpgo.run.warm.folder import VARIABLE, Workflow
from bpgo.run.warm.worker import work

WATCH = 0.5  # seconds between looks at Snakemake and the folder
LAST_ITERATION = 120.0  # seconds for jobs that end because Snakemake has
HAND_OVER = 5.0  # seconds for a whole request
GONE = select.POLLRDHUP | select.POLLHUP | select.POLLERR
# Its allocator's own thread, which would not be in a forked process. pyarrow takes another one.
ONE_THREAD = {"JE_ARROW_MALLOC_CONF": "background_thread:false"}


class Client:
    """A job's connection, its request, and the process that does it, once there is one."""

    def __init__(
        self, connection: socket.socket, request: dict[str, Any], files: list[int]
    ) -> None:
        self.connection, self.request, self.files = connection, request, files
        self.process: int | None = None
        self.missing = list(modules.modules_of(request["command"]))

    def answer(self, **values: Any) -> None:
        """One line of JSON; a job that is gone is found out elsewhere."""
        with suppress(OSError):
            self.connection.sendall(json.dumps(values).encode() + b"\n")

    def close(self) -> None:
        """Let go of its descriptors."""
        self.connection.close()
        self.close_files()

    def close_files(self) -> None:
        """Those that belong to the forked process."""
        while self.files:
            os.close(self.files.pop())


class Server:
    """Takes requests between imports; forks a job as soon as all that it needs is there."""

    def __init__(self, listener: socket.socket, workflow: Workflow) -> None:
        self.listener, self.workflow = listener, workflow
        self.clients: dict[int, Client] = {}  # by descriptor
        self.loaded: set[str] = set()
        self.woken, self.waker = os.pipe()
        for end in (self.woken, self.waker):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(self.waker)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        self.poller = select.poll()
        self.poller.register(listener, select.POLLIN)
        self.poller.register(self.woken, select.POLLIN)
        self.snakemake = self._watched()

    def _watched(self) -> int | None:
        """Readable when Snakemake has ended; None where Linux or Python is too old for it."""
        if not hasattr(os, "pidfd_open"):
            return None
        try:
            found = os.pidfd_open(self.workflow.process)
        except OSError:
            return None
        self.poller.register(found, select.POLLIN)
        return found

    def serve(self) -> None:
        """Until Snakemake or its folder is gone."""
        look = 0.0
        while True:
            waiting = [client for client in self.clients.values() if client.process is None]
            events = self.poller.poll(0 if waiting else WATCH * 1000)
            for descriptor, event in events:
                self._handle(descriptor, event)
            self._reap()
            if any(descriptor == self.snakemake for descriptor, _event in events):
                return
            if time.monotonic() >= look:
                if not self.workflow.goes_on():
                    return
                look = time.monotonic() + WATCH
            self._advance()

    def _handle(self, descriptor: int, event: int) -> None:
        if descriptor == self.listener.fileno():
            self._accept()
        elif descriptor == self.woken:
            os.read(self.woken, 4096)
        elif descriptor in self.clients and event & GONE:  # nobody waits for this job
            client = self.clients[descriptor]
            if client.process is not None:
                kill(client.process)  # and it will be waited for
                self.poller.unregister(descriptor)
            else:
                self._forget(client)

    def _accept(self) -> None:
        connection, _ = self.listener.accept()
        try:
            connection.settimeout(HAND_OVER)
            client = received(connection)
        except (OSError, ValueError, KeyError):
            traceback.print_exc()
            connection.close()
            return
        self.clients[connection.fileno()] = client
        self.poller.register(connection, GONE)

    def _forget(self, client: Client) -> None:
        descriptor = client.connection.fileno()
        with suppress(KeyError):
            self.poller.unregister(descriptor)
        del self.clients[descriptor]
        client.close()

    def _advance(self) -> None:
        """Fork the jobs that lack nothing; import one module for the first that does."""
        for client in list(self.clients.values()):
            if client.process is None:
                client.missing = [name for name in client.missing if name not in self.loaded]
                if not client.missing:
                    self._fork(client)
        lacking = [client for client in self.clients.values() if client.process is None]
        if lacking:
            module = lacking[0].missing[0]
            try:
                modules.load(module, self.workflow.kinds)
            except Exception:  # the job will meet it, and say so where people look
                traceback.print_exc()
            self.loaded.add(module)

    def _fork(self, client: Client) -> None:
        if len(os.listdir("/proc/self/task")) > 1:  # noqa: PTH208
            client.answer(why="its server has threads, and cannot fork")
            self._forget(client)
            return
        gc.freeze()  # a process that looks for garbage would copy all of it
        server = os.getpid()
        try:
            process = os.fork()
        except OSError as error:
            client.answer(why=f"its server cannot fork: {error}")
            self._forget(client)
            return
        if process == 0:
            for other in self.clients.values():
                if other is not client:
                    other.close()
            self.listener.close()
            own = [self.woken, self.waker] + ([] if self.snakemake is None else [self.snakemake])
            work(server, client.request, client.connection, client.files, own)
        client.process = process
        client.close_files()
        client.answer(process=process)

    def _reap(self) -> None:
        """Tell jobs of the end of their processes."""
        for client in [client for client in self.clients.values() if client.process is not None]:
            assert client.process is not None
            process, status, used = os.wait4(client.process, os.WNOHANG)
            if process:
                client.answer(
                    status=status,
                    seconds=used.ru_utime + used.ru_stime,
                    peak=used.ru_maxrss,
                    read=used.ru_inblock,
                    written=used.ru_oublock,
                )
                self._forget(client)

    def end(self) -> None:
        """Nothing survives the run; training may save its state first."""
        going = {client.process for client in self.clients.values() if client.process is not None}
        for process in going:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGTERM)
        deadline = time.monotonic() + LAST_ITERATION
        while going and time.monotonic() < deadline:
            going -= {process for process in going if os.waitpid(process, os.WNOHANG)[0]}
            time.sleep(0.02)
        for process in going:
            kill(process)
        if not self.workflow.runs():
            shutil.rmtree(self.workflow.folder, ignore_errors=True)


def kill(process: int) -> None:
    """A job's process, and all of its group."""
    for send in (os.kill, os.killpg):
        with suppress(ProcessLookupError):
            send(process, signal.SIGKILL)


def received(connection: socket.socket) -> Client:
    """Read a request, which comes in one piece."""
    credentials = connection.getsockopt(
        socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")
    )
    _process, user, _group = struct.unpack("3i", credentials)
    if user != os.getuid():
        raise PermissionError(f"user {user} has no business here")
    head, files, _flags, _address = socket.recv_fds(connection, LENGTH, 3)
    length, data = int.from_bytes(head, "big"), b""
    while len(data) < length:
        if not (part := connection.recv(length - len(data))):
            raise ValueError("a request has broken off")
        data += part
    return Client(connection, json.loads(data), files)


def main() -> None:
    """Serve one run of Snakemake."""
    os.setsid()  # a terminal's signals are for the jobs
    os.closerange(LISTENER + 1, os.sysconf("SC_OPEN_MAX"))
    listener = socket.socket(fileno=LISTENER)
    listener.set_inheritable(False)
    workflow = Workflow.of_this_job()
    if workflow is None:
        raise SystemExit(f"{VARIABLE} names no run of Snakemake")
    os.environ.update(ONE_THREAD)
    gc.disable()
    server = Server(listener, workflow)
    try:
        server.serve()
    except BaseException:
        traceback.print_exc()
    finally:
        server.end()
        os._exit(0)  # taking all modules apart would take longer than all else


if __name__ == "__main__":
    main()
