"""Measure how the cost grows with connections, size and processes.

``python benchmarks/growth.py [--write docs/explanation/]``.

``docs/explanation/benchmarks.rst`` says how it is measured.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # this checkout is measured, whether or not some version is installed

from load import HOST, KIB, MIB, Scenario, postfix  # noqa: E402
from measure import (  # noqa: E402
    START_TIMEOUT,
    Cores,
    MeasurementError,
    Sample,
    Server,
    Unsupported,
    allow_many_sockets,
    free_port,
    idle_connections,
    process_tree,
    run_load,
    run_measured,
    started,
    take_cores,
)
from peers import PEERS, Peer  # noqa: E402
from report import NOTHING, OURS, figure, section, table  # noqa: E402
from run import describe_machine  # noqa: E402
from servers.hashing import work_seconds  # noqa: E402

ROUNDS, QUICK_ROUNDS, QUICK_SHARE = 3, 1, 5
SINK = "smtp-sink"
NO_CERTIFICATE = Path(os.devnull)

CONNECTIONS = (1, 10, 100, 1000, 5000)
QUICK_CONNECTIONS = (1, 10, 1000)
WORKING = 10
BUSY_MESSAGES, IDLE_MESSAGES = 10_000, 3000
# What is measured of each connection that is in use; a single one, which waits for every reply, would take long.
LEAST_EACH, MOST_EACH = 4, 3000

SIZES = {
    "1 KB": (KIB, 6000),
    "10 KB": (10 * KIB, 4000),
    "100 KB": (100 * KIB, 1000),
    "1 MB": (MIB, 200),
    "10 MB": (10 * MIB, 30),
    "100 MB": (100 * MIB, 4),
}
QUICK_SIZES = ("1 KB", "100 KB", "10 MB")
SENDERS = 4

WORKERS = (1, 2)
HASHING = "benchmarks.servers.hashing.Handler"
CREW_MESSAGES = {HASHING: 1500, "sink": 6000}
CREW_SENDERS = 20
TAKEN = re.compile(r'^smtpd_messages_total\{(?:worker="\d+",)?verdict="accepted"\} (\d+)$', re.MULTILINE)
UP = re.compile(r"^smtpd_worker_up\{.*\} 1$", re.MULTILINE)


@dataclass(frozen=True)
class Supervisor:
    """One or more processes of ``twist smtpd``, and what is sent to them.

    :ivar handler: what ``-c`` is given.
    :ivar keep: whether a connection sends more than one message.
    :ivar workers: how many processes serve.
    """

    handler: str
    keep: bool
    workers: int

    @property
    def title(self) -> str:
        """What it is, for the report."""
        handler = "computing handler" if self.handler == HASHING else "trivial handler"
        return (
            f"{handler}, {'kept' if self.keep else 'fresh'} connections, {self.workers} worker{'s'[: self.workers - 1]}"
        )

    def command(self, port: int, page: int) -> list[str]:
        """The command that starts it, on a port, with its metrics on another."""
        twist = [sys.executable, "-m", "twisted", "--log-level=critical", f"--log-file={os.devnull}", "smtpd"]
        places = ["-l", f"{HOST}:{port}", "--metrics", f"{HOST}:{page}"]
        return [*twist, "-c", self.handler, *places, "--workers", str(self.workers)]

    def load(self, messages: int) -> Scenario:
        """What is sent."""
        return Scenario("", "", messages, KIB, connections=CREW_SENDERS, keep=self.keep)


CREWS = [Supervisor(handler, keep, count) for handler in CREW_MESSAGES for keep in (True, False) for count in WORKERS]


@dataclass(frozen=True)
class SupervisorSample(Sample):
    """One run of some workers.

    :ivar taken: how many messages each of them took.
    """

    taken: list[int]


@dataclass
class Results:
    """What was found, a figure for each round; a server is its name.

    :ivar busy: seconds of CPU per message by server and connections, all of them in use.
    :ivar idle: the same where all but ``WORKING`` are idle.
    :ivar sizes: by server and the name of the size.
    :ivar crews: the runs of each supervisor.
    :ivar left_out: what has no figure, and why.
    :ivar failed: how many of these should have one.
    """

    busy: dict[tuple[str, int], list[float]] = field(default_factory=dict)
    idle: dict[tuple[str, int], list[float]] = field(default_factory=dict)
    sizes: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    crews: dict[Supervisor, list[SupervisorSample]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    failed: int = 0

    def attempt(self, what: str, work: Callable[[], float]) -> None:
        """Measure one thing once."""
        if what in self.left_out:
            return
        try:
            outcome = f"{work() * 1e6:12,.1f} µs"
        except Unsupported as error:
            outcome = self.left_out[what] = str(error)
        except MeasurementError as error:
            outcome = self.left_out[what] = str(error)
            self.failed += 1
        print(f"  {what:50}  {outcome}", file=sys.stderr, flush=True)


def busy(peer: Peer, connections: int, messages: int, cores: Cores) -> float:
    """CPU per message on connections that are all in use.

    Opening them costs too: two loads that open as many, and send a different number of messages, tell it apart.

    :returns: seconds.
    """
    base = max(connections, messages // 10)
    more = max(LEAST_EACH * connections, messages)
    load = Scenario("", "", more, KIB, connections=connections)
    with peer.serving(load, NO_CERTIFICATE, 3 * base + more, cores) as server:
        run_load(load.command(server.port, base))
        short = run_measured(server, load.command(server.port, base), base)
        long = run_measured(server, load.command(server.port, base + more), base + more)
        peer.check(server, 3 * base + more)
    return (long.cpu - short.cpu) / more


def idle(peer: Peer, connections: int, messages: int, cores: Cores) -> float:
    """CPU per message on ``WORKING`` connections while the others are open, and have nothing to do.

    :returns: seconds.
    """
    warm_up = messages // 10
    load = Scenario("", "", messages, KIB, connections=WORKING)
    with peer.serving(load, NO_CERTIFICATE, warm_up + messages, cores) as server:
        with idle_connections(server.port, connections - WORKING):
            run_load(load.command(server.port, warm_up))
            sample = run_measured(server, load.command(server.port, messages), messages)
        peer.check(server, warm_up + messages)
    return sample.cpu / messages


def sized(peer: Peer, size: int, messages: int, cores: Cores) -> float:
    """CPU per message of a size.

    :returns: seconds.
    """
    warm_up = max(SENDERS, messages // 10)
    load = Scenario("", "", messages, size, connections=SENDERS)
    with peer.serving(load, NO_CERTIFICATE, warm_up + messages, cores) as server:
        run_load(load.command(server.port, warm_up))
        sample = run_measured(server, load.command(server.port, messages), messages)
        peer.check(server, warm_up + messages)
    return sample.cpu / messages


def supervisor_sample(supervisor: Supervisor, messages: int, cores: Cores) -> SupervisorSample:
    """What some workers do on both cores, which they share with the load.

    :raises MeasurementError: if not every message arrived once.
    """
    port, page = free_port(), free_port()
    load = supervisor.load(messages)
    with started(supervisor.command(port, page), port, cores) as server, everywhere(server, cores):
        wait_for(page, supervisor.workers)
        run_load(load.command(port, messages // 10))
        before = messages_taken(page)
        sample = run_measured(server, load.command(port, messages), messages)
        after = messages_taken(page)
        stop(server)
    if sum(after) != messages + messages // 10 or len(before) != len(after):
        raise MeasurementError(f"{messages + messages // 10} messages were sent, {sum(after)} arrived")
    return SupervisorSample(
        messages, sample.seconds, sample.cpu, [new - old for old, new in zip(before, after, strict=True)]
    )


def metrics(page: int) -> str:
    """What the server tells about itself.

    :raises MeasurementError: if it doesn't.
    """
    try:
        with urllib.request.urlopen(f"http://{HOST}:{page}/metrics", timeout=START_TIMEOUT) as answer:
            return str(answer.read().decode())
    except OSError as error:
        raise MeasurementError(f"no metrics: {error}") from None


def messages_taken(page: int) -> list[int]:
    """How many messages each worker has taken."""
    return [int(count) for count in TAKEN.findall(metrics(page))]


def wait_for(page: int, workers: int) -> None:
    """Wait until all workers serve.

    :raises MeasurementError: if they don't within ``START_TIMEOUT`` seconds.
    """
    deadline = time.perf_counter() + START_TIMEOUT
    # One process without workers has no line for each, but serves already.
    while workers > 1 and len(UP.findall(metrics(page))) < workers:
        if time.perf_counter() > deadline:
            raise MeasurementError(f"not all workers serve within {START_TIMEOUT} s")
        time.sleep(0.05)


def stop(server: Server) -> None:
    """End a server that was started with ``twist``, which ends itself with the signal that stopped it.

    :raises MeasurementError: if it doesn't end, or in another way.
    """
    server.process.terminate()
    try:
        status = server.process.wait(START_TIMEOUT)
    except subprocess.TimeoutExpired as error:
        raise MeasurementError("the server does not stop") from error
    if status not in (0, -signal.SIGTERM):
        raise MeasurementError(f"the server ended with {status}: {server.last_error()}")


@contextlib.contextmanager
def everywhere(server: Server, cores: Cores) -> Iterator[None]:
    """Let a server and the load run on both cores."""
    both = {cores.server, cores.load}
    # A process is listed after its parent, so one that is started meanwhile has it from there.
    for process in [0, *process_tree(server.process.pid)]:
        os.sched_setaffinity(process, both)
    for process in process_tree(server.process.pid):
        os.sched_setaffinity(process, both)
    try:
        yield
    finally:
        os.sched_setaffinity(0, {cores.load})


class Growth:
    """One run of everything.

    :param cores: where the servers and the loads run.
    :param quick: whether less is enough.
    """

    def __init__(self, cores: Cores, quick: bool) -> None:
        self.results, self.cores, self.quick = Results(), cores, quick
        self.peers = [peer for peer in PEERS if peer.name in (OURS, SINK)]
        self.versions = {peer.name: peer.version() for peer in self.peers}
        self.connections = QUICK_CONNECTIONS if quick else CONNECTIONS
        self.sizes = QUICK_SIZES if quick else tuple(SIZES)

    def share(self, messages: int) -> int:
        """How many of so many messages to send."""
        return max(SENDERS, messages // QUICK_SHARE) if self.quick else messages

    def round(self) -> None:
        """Measure everything once, each thing on one server after the other."""
        for connections in self.connections:
            for peer in self.peers:
                self._connections(peer, connections)
        for size in self.sizes:
            for peer in self.peers:
                self._size(peer, size)
        for supervisor in CREWS:
            self._supervisor(supervisor)

    def _connections(self, peer: Peer, connections: int) -> None:
        results = self.results

        def all_busy() -> float:
            messages = min(BUSY_MESSAGES, MOST_EACH * connections)
            cost = busy(peer, connections, self.share(messages), self.cores)
            results.busy.setdefault((peer.name, connections), []).append(cost)
            return cost

        def most_idle() -> float:
            cost = idle(peer, connections, self.share(IDLE_MESSAGES), self.cores)
            results.idle.setdefault((peer.name, connections), []).append(cost)
            return cost

        results.attempt(f"{connections} connections in use, {peer.name}", all_busy)
        if connections > WORKING:
            results.attempt(f"{WORKING} of {connections} connections in use, {peer.name}", most_idle)

    def _size(self, peer: Peer, name: str) -> None:
        size, messages = SIZES[name]

        def work() -> float:
            cost = sized(peer, size, self.share(messages), self.cores)
            self.results.sizes.setdefault((peer.name, name), []).append(cost)
            return cost

        self.results.attempt(f"{name}, {peer.name}", work)

    def _supervisor(self, supervisor: Supervisor) -> None:
        def work() -> float:
            sample = supervisor_sample(supervisor, self.share(CREW_MESSAGES[supervisor.handler]), self.cores)
            self.results.crews.setdefault(supervisor, []).append(sample)
            return sample.cpu / sample.messages

        self.results.attempt(supervisor.title, work)

    # -- the report ----------------------------------------------------------------------------------------------------

    def text(self, machine: dict[str, str]) -> str:
        """The whole report."""
        names = [peer.name for peer in self.peers]
        conditions = "\n".join(f":{name}: {value}" for name, value in machine.items())
        parts = [self._connection_table(names), self._size_table(names), self._supervisor_table()]
        parts.append(section("Growth: measured with", conditions))
        if self.results.left_out:
            lines = [f"* {what}: {reason}" for what, reason in self.results.left_out.items()]
            parts.append(section("Growth: left out", "\n".join(lines)))
        return "\n\n".join(parts) + "\n"

    def _connection_table(self, names: list[str]) -> str:
        rows = []
        for connections in self.connections:
            key = [(name, connections) for name in names]
            costs = [median(self.results.busy.get(one)) for one in key]
            costs += [median(self.results.idle.get(one)) for one in key]
            rows.append([f"{connections:,}", *(figure(cost and cost * 1e6) for cost in costs)])
        head = ["connections open", *(f"{name}: all in use" for name in names)]
        head += [f"{name}: {WORKING} in use" for name in names]
        about = "Microseconds of CPU for a 1 KB message on a kept connection; what opening it takes is not in it."
        return section("More connections", about, table(head, rows))

    def _size_table(self, names: list[str]) -> str:
        rows = []
        for name in self.sizes:
            costs = [median(self.results.sizes.get((server, name))) for server in names]
            per_octet = [cost and cost / SIZES[name][0] * 1e9 for cost in costs]
            rows.append([name, *(figure(cost and cost * 1e6) for cost in costs), *map(figure, per_octet)])
        head = ["body", *(f"{name}: µs" for name in names), *(f"{name}: ns/octet" for name in names)]
        about = f"CPU per message, and per octet of it; {SENDERS} kept connections."
        return section("Larger messages", about, table(head, rows))

    def _supervisor_table(self) -> str:
        rows = []
        for supervisor in CREWS:
            samples = self.results.crews.get(supervisor)
            alone = self.results.crews.get(Supervisor(supervisor.handler, supervisor.keep, 1))
            if not samples or not alone:
                rows.append([supervisor.title, *[NOTHING] * 4])
                continue
            rate, unit = (statistics.median(s.messages / s.seconds for s in some) for some in (samples, alone))
            cost = statistics.median(s.cpu / s.messages for s in samples)
            shares = [max(s.taken) / sum(s.taken) for s in samples]
            rows.append([supervisor.title, figure(rate), figure(rate / unit), figure(cost * 1e6)])
            rows[-1].append(f"{statistics.median(shares):.0%}")
        head = ["1 KB messages", "messages/s", "times one worker's", "CPU per message, µs", "most taken by one"]
        about = f"{CREW_SENDERS} connections at a time; the workers, their parent and the load share two cores."
        return section("More workers", about, table(head, rows))


def median(values: list[float] | None) -> float | None:
    """The median, if there is any value."""
    return statistics.median(values) if values else None


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer steps, messages and rounds")
    parser.add_argument("--rounds", type=int, help=f"how many (default: {ROUNDS}; {QUICK_ROUNDS} with --quick)")
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="write the tables there")
    arguments = parser.parse_args()
    if arguments.rounds is not None and arguments.rounds < 1:
        parser.error("--rounds is at least 1")
    if arguments.write is not None and not arguments.write.is_dir():
        parser.error(f"--write: {arguments.write} is not a folder")
    return arguments


def main() -> int:
    """Run the command line.

    :returns: the exit status: 1 if something that should have a figure has none.
    """
    arguments = parse_arguments()
    try:
        for program in ("smtp-source", SINK):
            postfix(program)
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 1
    rounds = arguments.rounds or (QUICK_ROUNDS if arguments.quick else ROUNDS)
    allow_many_sockets()
    cores = take_cores()
    growth = Growth(cores, arguments.quick)
    machine = describe_machine(cores, rounds)
    machine["the handler that computes"] = f"{figure(work_seconds() * 1e6)} µs by itself"
    machine |= growth.versions
    for number in range(1, rounds + 1):
        print(f"round {number} of {rounds}", file=sys.stderr)
        growth.round()
    text = growth.text(machine)
    print(text)
    if growth.results.failed:
        print("something failed: see above; nothing is written", file=sys.stderr)
    elif arguments.write is not None:
        note = ".. Written by benchmarks/growth.py; changes by hand are lost.\n\n"
        (arguments.write / "growth-table.txt").write_text(note + text, encoding="utf-8")
    return 1 if growth.results.failed else 0


if __name__ == "__main__":
    sys.exit(main())
