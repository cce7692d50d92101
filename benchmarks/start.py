"""Measure imports and starts beside those of Twisted and aiosmtpd: ``python benchmarks/start.py [--rounds N]``.

Each figure is of a fresh process, in turns with its peer's, and
``docs/explanation/benchmarks.rst`` says how it is measured.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from measure import HOST, START_TIMEOUT, MeasurementError, free_port

ROOT = Path(__file__).resolve().parent.parent
ROUNDS = 31
POLL = 0.001

# A program prints seconds of CPU, then of the clock.
_PROGRAM = """
import time
{before}
begun, used = time.perf_counter(), time.process_time()
{code}
print(time.process_time() - used, time.perf_counter() - begun)
{after}
"""
_START = """
from {package}.controller import Controller
class Handler:
    async def handle_DATA(self, server, session, envelope):
        return "250 OK"
controller = Controller(Handler(), hostname="127.0.0.1", port={port})
"""


@dataclass(frozen=True)
class Cost:
    """What one process took.

    :ivar cpu: seconds of CPU, user and system.
    :ivar wall: seconds of the clock.
    """

    cpu: float
    wall: float


@dataclass(frozen=True)
class Comparison:
    """One line of the table.

    :ivar title: what is measured.
    :ivar peer: what it is measured beside.
    :ivar ours: measures it once.
    :ivar theirs: measures the peer once.
    :ivar target: what the ratio should be at most.
    """

    title: str
    peer: str
    ours: Callable[[], Cost]
    theirs: Callable[[], Cost]
    target: float


class Measurement:
    """Runs the processes; they share a cache of compiled modules, so that no figure has Python's compiler in it.

    :param cache: an empty folder for the compiled modules.
    """

    def __init__(self, cache: str) -> None:
        self._environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        self._environment |= {"PYTHONPYCACHEPREFIX": cache, "PYTHONPATH": str(ROOT)}

    def inside(self, code: str, before: str = "", after: str = "") -> Cost:
        """What some code takes.

        :param before: code that runs first and is not measured.
        :param after: the same for what runs last.
        """
        program = _PROGRAM.format(before=before, code=code, after=after)
        done = subprocess.run([sys.executable, "-c", program], env=self._environment, capture_output=True, text=True)
        if done.returncode:
            raise MeasurementError(done.stderr.strip())
        cpu, wall = map(float, done.stdout.split())
        return Cost(cpu, wall)

    def first_start(self, package: str) -> Cost:
        """What the first ``start()`` of a controller takes, from the call to its return."""
        return self.inside("controller.start()", _START.format(package=package, port=free_port()), "controller.stop()")

    def first_answer(self, arguments: Sequence[str], request: bytes) -> Cost:
        """What ``twist`` takes from the start of its process until a client has the first octets of an answer.

        :param arguments: what follows ``twist``; ``{port}`` is where to listen.
        :param request: what the client says first.
        """
        port = free_port()
        command = [sys.executable, "-m", "twisted", *(argument.format(port=port) for argument in arguments)]
        begun = time.perf_counter()
        process = subprocess.Popen(command, env=self._environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            _ask(port, request, begun + START_TIMEOUT)
            wall = time.perf_counter() - begun
        finally:
            process.kill()
            # Not communicate(): only this says what the process used.
            _, _, usage = os.wait4(process.pid, 0)
            process.returncode = -9
        return Cost(usage.ru_utime + usage.ru_stime, wall)


def _ask(port: int, request: bytes, until: float) -> None:
    """Connect as soon as that is possible, and wait for the first octets."""
    while True:
        try:
            client = socket.create_connection((HOST, port), timeout=START_TIMEOUT)
        except ConnectionRefusedError:
            if time.perf_counter() > until:
                raise MeasurementError(f"nothing listens on port {port}") from None
            time.sleep(POLL)
        else:
            break
    with client:
        client.sendall(request)
        if not client.recv(1):
            raise MeasurementError("the connection was closed without an answer")


def comparisons(measurement: Measurement) -> list[Comparison]:
    """All lines of the table."""
    inside, answer = measurement.inside, measurement.first_answer
    return [
        Comparison(
            "import twisted_smtpd.controller",
            "Twisted's asyncioreactor and ssl",
            lambda: inside("import twisted_smtpd.controller"),
            lambda: inside("import twisted.internet.asyncioreactor, twisted.internet.ssl"),
            1.2,
        ),
        Comparison(
            "first Controller.start()",
            "aiosmtpd's",
            lambda: measurement.first_start("twisted_smtpd"),
            lambda: measurement.first_start("aiosmtpd"),
            3,
        ),
        Comparison(
            "twist smtpd, to the greeting",
            "twist web, to its first answer",
            lambda: answer(["smtpd", "--listen", "127.0.0.1:{port}"], b""),
            lambda: answer(["web", "--listen", "tcp:{port}:interface=127.0.0.1"], b"GET / HTTP/1.0\r\n\r\n"),
            1.2,
        ),
    ]


def measure(comparison: Comparison, rounds: int) -> list[tuple[Cost, Cost]]:
    """Measure a line: once unmeasured, which fills the caches, then in turns, each going first every other time."""
    comparison.ours(), comparison.theirs()
    pairs = []
    for number in range(rounds):
        if number % 2:
            theirs, ours = comparison.theirs(), comparison.ours()
        else:
            ours, theirs = comparison.ours(), comparison.theirs()
        pairs.append((ours, theirs))
    return pairs


def line(comparison: Comparison, pairs: Sequence[tuple[Cost, Cost]]) -> str:
    """A line of the table: medians in ms, and the median of the rounds' ratios."""
    figures = []
    for of in (lambda cost: cost.cpu, lambda cost: cost.wall):
        ours, theirs = (statistics.median(of(pair[i]) * 1e3 for pair in pairs) for i in (0, 1))
        ratio = statistics.median(of(one) / of(other) for one, other in pairs)
        figures.append(f"{ours:6.1f} {theirs:6.1f} {ratio:5.2f}")
    return f"{comparison.title:<33}{figures[0]}   {figures[1]}   {comparison.target:>5}   {comparison.peer}"


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"how often each is measured [{ROUNDS}]")
    rounds = parser.parse_args().rounds
    cache = tempfile.mkdtemp()
    try:
        columns = f"{'ours':>6} {'peer':>6} {'ratio':>5}"
        print(f"{'':<33}{'CPU, ms':<19}   {'elapsed, ms':<19}   {'at':>5}")
        print(f"{'':<33}{columns}   {columns}   {'most':>5}   peer")
        for comparison in comparisons(Measurement(cache)):
            print(line(comparison, measure(comparison, rounds)), flush=True)
    finally:
        shutil.rmtree(cache)


if __name__ == "__main__":
    main()
