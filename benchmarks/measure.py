"""Run a server under a load, each on its own core, and read what it cost."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

HERE = Path(__file__).resolve().parent
HOST = "127.0.0.1"
UNSUPPORTED = 77
START_TIMEOUT = 20.0
LOAD_TIMEOUT = 300.0
# A server may still be closing connections when the client has read its last reply.
SETTLE = 0.05


class Unsupported(Exception):
    """The server does not do what the scenario needs: it is left out."""


class MeasurementError(Exception):
    """The server, or the load, did not do what it should: there is no figure."""


@dataclass(frozen=True)
class Sample:
    """One run.

    :ivar messages: how many were sent, and arrived.
    :ivar seconds: how long the load took.
    :ivar cpu: seconds of CPU that the server used, user and system.
    """

    messages: int
    seconds: float
    cpu: float


@dataclass(frozen=True)
class Cores:
    """Where the server runs, and where everything else does."""

    server: int
    load: int


def take_cores() -> Cores:
    """Choose two cores and move this process, and so each load it starts, to the second."""
    available = sorted(os.sched_getaffinity(0))
    cores = Cores(available[0], available[-1])
    os.sched_setaffinity(0, {cores.load})
    return cores


def allow_many_sockets() -> None:
    """Raise the limit of open files as far as it goes; servers and loads inherit it."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def free_port() -> int:
    """A TCP port without a listener."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def process_tree(pid: int) -> list[int]:
    """A process and its descendants."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            found += map(int, task.read_text().split())
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time of a process tree so far."""
    # Linux's clock id of another process's CPU clock: nanoseconds, where /proc/PID/stat has ticks of 10 ms.
    return sum(time.clock_gettime((~process << 3) | 2) for process in process_tree(pid))


def rss_bytes(pid: int) -> int:
    """Resident memory of a process tree."""
    pages = sum(int(Path(f"/proc/{process}/statm").read_text().split()[1]) for process in process_tree(pid))
    return pages * resource.getpagesize()


def open_files(pid: int) -> int:
    """How many files, sockets included, a process tree has open."""
    return sum(len(os.listdir(f"/proc/{process}/fd")) for process in process_tree(pid))


@dataclass
class Server:
    """A server that runs.

    :ivar process: the process; stdout says what arrived, for those that report it.
    :ivar port: where it listens.
    :ivar errors: what it wrote to stderr.
    :ivar start_seconds: from the start of the process to its first banner (implicit TLS: to the first connection).
    """

    process: subprocess.Popen[str]
    port: int
    errors: IO[str]
    start_seconds: float

    def stop(self) -> str:
        """End it, and return what it printed.

        :raises MeasurementError: if it doesn't end well.
        """
        self.process.terminate()
        try:
            output = self.process.communicate(timeout=START_TIMEOUT)[0]
        except subprocess.TimeoutExpired as error:
            raise MeasurementError("the server does not stop") from error
        # `twist` passes the signal on to itself when it is done.
        if self.process.returncode not in (0, -signal.SIGTERM):
            raise MeasurementError(f"the server ended with {self.process.returncode}: {self.last_error()}")
        return output

    def last_error(self) -> str:
        """The last line of its stderr."""
        self.errors.seek(0)
        return _tail(self.errors.read())


def _tail(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "no message"


@contextlib.contextmanager
def started(command: list[str], port: int, cores: Cores, silent: bool = False) -> Iterator[Server]:
    """Start a server on its core, wait until it serves, and kill it at the end if it still runs.

    :param silent: don't wait for a banner, only for the connection (implicit TLS).
    :raises Unsupported: if it says that it lacks what its command line asks for.
    :raises MeasurementError: if it doesn't serve within ``START_TIMEOUT`` seconds.
    """
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    with tempfile.TemporaryFile("w+") as errors:
        begin = time.perf_counter()
        os.sched_setaffinity(0, {cores.server})  # inherited, so that no thread of the server starts elsewhere
        try:
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment, cwd=tempfile.gettempdir()
            )
        finally:
            os.sched_setaffinity(0, {cores.load})
        server = Server(process, port, errors, 0.0)
        try:
            _wait_until_served(server, silent)
            server.start_seconds = time.perf_counter() - begin
            yield server
        finally:
            if process.poll() is None:
                process.kill()
            process.communicate()


def _wait_until_served(server: Server, silent: bool) -> None:
    deadline = time.perf_counter() + START_TIMEOUT
    while time.perf_counter() < deadline:
        if server.process.poll() is not None:
            raise (Unsupported if server.process.returncode == UNSUPPORTED else MeasurementError)(server.last_error())
        with (
            contextlib.suppress(ConnectionError, TimeoutError),
            socket.create_connection((HOST, server.port), START_TIMEOUT) as connection,
        ):
            if silent or connection.recv(3) == b"220":
                return
        time.sleep(0.001)
    raise MeasurementError(f"the server does not serve within {START_TIMEOUT} s")


def run_load(command: list[str]) -> float:
    """Run a load to its end.

    :returns: seconds it took: what it prints, if it prints that, else its whole run.
    :raises Unsupported: if the server does not offer what the load needs.
    :raises MeasurementError: if the load saw an answer it did not expect, or does not end.
    """
    begin = time.perf_counter()
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=LOAD_TIMEOUT)
    except subprocess.TimeoutExpired as error:
        raise MeasurementError(f"the load does not end within {LOAD_TIMEOUT} s") from error
    elapsed = time.perf_counter() - begin
    if result.returncode == UNSUPPORTED:
        raise Unsupported(_tail(result.stderr))
    # smtp-source warns and ends with status 0 when a connection breaks.
    if result.returncode != 0 or result.stderr.strip():
        raise MeasurementError(f"the load failed: {_tail(result.stderr)}")
    return float(result.stdout or elapsed)


def run_measured(server: Server, command: list[str], messages: int) -> Sample:
    """Run a load, and read what it cost the server.

    :raises MeasurementError: if the server ended meanwhile, and as :func:`run_load`.
    """
    try:
        before = cpu_seconds(server.process.pid)
        seconds = run_load(command)
        time.sleep(SETTLE)
        return Sample(messages, seconds, cpu_seconds(server.process.pid) - before)
    except OSError as error:
        raise MeasurementError(f"the server ended early: {server.last_error()}") from error


def idle_memory(server: Server, connections: int, tls: str = "none") -> float:
    """Open connections that stay idle after EHLO, and then as many more: what these take is what is measured.

    The first ones use up what the allocator has left over from the start.

    :param tls: how they begin: ``none``, ``starttls`` or ``implicit``.
    :returns: bytes of resident memory for each.
    :raises MeasurementError: if they could not all be opened, or did not stay open.
    """
    pid = server.process.pid
    with idle_connections(server.port, connections, tls):
        before = rss_bytes(pid)
        with idle_connections(server.port, connections, tls):
            if open_files(pid) < 2 * connections:
                raise MeasurementError("the server closed some of the idle connections")
            return (rss_bytes(pid) - before) / connections


@contextlib.contextmanager
def idle_connections(port: int, count: int, tls: str) -> Iterator[None]:
    """Connections that are open, and idle after EHLO, while this lasts.

    :raises MeasurementError: if they could not all be opened.
    """
    command = [sys.executable, str(HERE / "client.py"), str(port), "--idle", "--connections", str(count)]
    command += ["--tls", tls]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        if not client.stdout.readline():
            raise MeasurementError("the idle connections could not be opened")
        yield
