"""Tests for :mod:`twisted_smtpd.workers`."""

from __future__ import annotations

import atexit
import io
import json
import os
import runpy
import signal
import socket
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.application.reactors import getReactorTypes
from twisted.application.twist._options import TwistOptions
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError, ProcessExitedAlready, ProcessTerminated, ReactorNotRunning
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator, IReactorTCP
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.logger import LogLevel, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from twisted_smtpd.handlers import Sink
from twisted_smtpd.metrics import Reading, snapshot
from twisted_smtpd.options import Listener
from twisted_smtpd.tap import Options, makeService
from twisted_smtpd.traffic import Traffic
from twisted_smtpd.workers import service as service_module
from twisted_smtpd.workers import worker as worker_module
from twisted_smtpd.workers.crew import FIRST_DELAY, LONGEST_DELAY, MARGIN, MAX_LINE, PATIENCE, SETTLED, Crew
from twisted_smtpd.workers.service import CrewService, leave_with, reactor_name, twist_arguments
from twisted_smtpd.workers.sockets import BATCH, MOST_PATIENCE, Binder, Inheritor, SharedSocket, take_turns
from twisted_smtpd.workers.worker import Assignment, Link, WorkerService, boot_arguments

SHARED = [SharedSocket("inet 127.0.0.1 25", 40, socket.AF_INET), SharedSocket("unix /run/s", 41, socket.AF_UNIX)]


class Port:
    """A listening port that notes what is done to it."""

    connected = True
    disconnecting = False

    def __init__(self, bound: socket.socket | None = None) -> None:
        self.socket = bound
        self.reading = True
        self.accepted: list[int] = []
        self.numberAccepts = 0

    def fileno(self) -> int:
        assert self.socket is not None
        return self.socket.fileno()

    def stopReading(self) -> None:
        self.reading = False

    def startReading(self) -> None:
        self.reading = True

    def doRead(self) -> None:
        self.accepted.append(self.numberAccepts)


class SocketReactor(MemoryReactorClock):
    """Listens on real sockets, without ever looking at them."""

    def __init__(self, test: SynchronousTestCase) -> None:
        super().__init__()
        self.test = test
        self.adopted: list[tuple[int, int, Any]] = []
        self.readers: list[Any] = []
        self.modes: list[int] = []

    def _port(self, family: int, address: Any) -> Any:
        bound = socket.socket(family)
        self.test.addCleanup(bound.close)
        bound.bind(address)
        bound.listen()
        return Port(bound)

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any:
        return self._port(socket.AF_INET, (interface, port))

    def listenUNIX(self, address: Any, factory: Any, backlog: int = 50, mode: int = 0o666, wantPID: Any = 0) -> Any:
        self.modes.append(mode)
        return self._port(socket.AF_UNIX, address)

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: Any, factory: Any) -> Any:
        self.adopted.append((fileDescriptor, addressFamily, factory))
        return Port(socket.socket(fileno=os.dup(fileDescriptor)))

    def addReader(self, reader: Any) -> None:
        self.readers.append(reader)

    def removeReader(self, reader: Any) -> None:
        self.readers.remove(reader)


@implementer(IOpenSSLServerConnectionCreator)
class Creator:
    """Is asked for no connection."""

    def serverConnectionForTLS(self, protocol: Any) -> Any:
        raise NotImplementedError


class SharingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = SocketReactor(self)
        self.binder = Binder(self.reactor)

    def inherit(self) -> Inheritor:
        """What a worker would listen with."""
        copies = [replace(one, descriptor=os.dup(one.descriptor)) for one in self.binder.shared]
        return Inheritor(self.reactor, copies)

    def test_the_parent_never_accepts(self) -> None:
        port: Any = self.binder.listenTCP(0, None, interface="127.0.0.1")
        self.assertFalse(port.reading)

    def test_the_parents_end_is_not_that_of_the_workers_sockets(self) -> None:
        port: Any = self.binder.listenTCP(0, None, interface="127.0.0.1")
        self.assertIs(port._shouldShutdown, False)

    def test_a_worker_listens_on_the_same_socket(self) -> None:
        bound: Any = self.binder.listenTCP(0, None, interface="127.0.0.1")
        port: Any = self.inherit().listenTCP(0, "factory", interface="127.0.0.1")
        self.addCleanup(port.socket.close)
        self.assertEqual(port.socket.getsockname(), bound.socket.getsockname())
        self.assertEqual(self.reactor.adopted[0][1:], (socket.AF_INET, "factory"))

    def test_the_inherited_descriptor_is_not_left_open(self) -> None:
        self.binder.listenTCP(0, None, interface="127.0.0.1")
        port: Any = self.inherit().listenTCP(0, None, interface="127.0.0.1")
        self.addCleanup(port.socket.close)
        self.assertRaises(OSError, os.fstat, self.reactor.adopted[0][0])

    def test_free_ports_are_told_apart(self) -> None:
        bound: list[Any] = [self.binder.listenTCP(0, None, interface="127.0.0.1") for _ in range(2)]
        inheritor = self.inherit()
        ports: list[Any] = [inheritor.listenTCP(0, None, interface="127.0.0.1") for _ in range(2)]
        for port, other in zip(ports, bound, strict=True):
            self.addCleanup(port.socket.close)
            self.assertEqual(port.socket.getsockname(), other.socket.getsockname())

    def test_what_the_parent_could_not_bind_a_worker_can_not(self) -> None:
        inheritor = self.inherit()
        error = self.assertRaises(CannotListenError, inheritor.listenTCP, 25, None, interface="::1")
        self.assertIn("Cannot assign", str(error))
        self.assertRaises(CannotListenError, inheritor.listenUNIX, "/run/s", None)
        self.assertRaises(CannotListenError, inheritor.adoptStreamPort, 3, socket.AF_INET, None)

    def test_tls_of_an_endpoint_is_the_workers_matter(self) -> None:
        self.binder.listenSSL(0, None, object(), interface="127.0.0.1")
        port: Any = self.inherit().listenSSL(0, Sink(), Creator(), interface="127.0.0.1")
        self.addCleanup(port.socket.close)
        self.assertEqual(type(self.reactor.adopted[0][2]).__name__, "TLSMemoryBIOFactory")

    def test_adopted_sockets(self) -> None:
        bound = socket.socket()
        self.addCleanup(bound.close)
        first: Any = self.binder.adoptStreamPort(bound.fileno(), socket.AF_INET, None)
        second: Any = self.inherit().adoptStreamPort(bound.fileno(), socket.AF_INET, "factory")
        for port in (first, second):
            self.addCleanup(port.socket.close)
        descriptor, *rest = self.reactor.adopted[1]
        self.assertEqual(rest, [socket.AF_INET, "factory"])
        # The endpoint closes it itself, and would not close another's.
        os.close(descriptor)

    def test_a_unix_socket_outlives_a_worker(self) -> None:
        path = f"/tmp/smtpd-{os.getpid()}"
        self.addCleanup(lambda: os.path.exists(path) and os.unlink(path))
        self.binder.listenUNIX(path, None, mode=0o600)
        os.chmod(path, 0o600)
        factory: Any = type("Factory", (), {"doStart": lambda self: None, "doStop": lambda self: None})()
        port: Any = self.inherit().listenUNIX(path, factory)
        self.assertEqual(self.reactor.readers, [port])
        self.assertEqual(port.getHost().name, path.encode())
        port.connectionLost(Failure(ConnectionError()))
        # Neither its file nor its rights are touched, and who connects now waits for another worker.
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o600)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)

    def test_it_is_the_real_reactor_for_the_rest(self) -> None:
        self.assertEqual(self.binder.seconds(), self.reactor.seconds())
        self.assertTrue(IReactorTCP.providedBy(self.binder))


class TurnsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.load = 0
        self.clock = Clock()
        self.port = Port()
        take_turns(self.port, self.clock, lambda: self.load)

    def test_an_idle_worker_takes_a_client_at_once(self) -> None:
        self.port.doRead()
        self.clock.advance(0)
        self.assertEqual((self.port.accepted, self.port.reading), ([BATCH], True))

    def test_a_busy_worker_leaves_it_to_the_others_for_a_while(self) -> None:
        self.load = 10 * BATCH
        self.port.doRead()
        self.clock.advance(MOST_PATIENCE / 10)
        self.assertEqual((self.port.accepted, self.port.reading), ([], False))
        self.clock.advance(MOST_PATIENCE)
        self.assertEqual((self.port.accepted, self.port.reading), ([BATCH + 10], True))

    def test_no_client_waits_long(self) -> None:
        self.load = 10**6
        self.port.doRead()
        self.clock.advance(MOST_PATIENCE)
        self.assertEqual(len(self.port.accepted), 1)

    def test_a_port_that_was_closed_meanwhile(self) -> None:
        for gone in ("connected", "disconnecting"):
            self.port.doRead()
            self.patch(self.port, gone, gone == "disconnecting")
            self.clock.advance(1)
            self.assertEqual((self.port.accepted, self.port.reading), ([], False))
            self.port.connected, self.port.disconnecting = True, False


class Process:
    """The transport of a process, and what its parent did."""

    def __init__(self, reactor: ProcessReactor, protocol: Any, arguments: list[str], descriptors: Any) -> None:
        self.reactor = reactor
        self.protocol = protocol
        self.arguments = arguments
        self.descriptors = descriptors
        self.told: list[bytes] = []
        self.signals: list[str] = []
        self.closed = self.exited = False

    @property
    def assignment(self) -> Assignment:
        return Assignment.loads(self.arguments[4])

    def writeToChild(self, descriptor: int, data: bytes) -> None:
        assert self.descriptors[descriptor] == "w"
        if self.closed:
            raise KeyError(descriptor)
        self.told.append(data)

    def signalProcess(self, name: str) -> None:
        if self.exited:
            raise ProcessExitedAlready
        self.signals.append(name)

    def say(self, line: bytes) -> None:
        self.protocol.childDataReceived(self.assignment.speaks, line)

    def end(self, status: int | None = 1, number: int | None = None) -> None:
        self.exited = True
        self.protocol.processExited(Failure(ProcessTerminated(status, number)))


class ProcessReactor(Clock):
    """Starts nothing, but knows what it should."""

    def __init__(self) -> None:
        super().__init__()
        self.processes: list[Process] = []
        self.stops = 0

    def spawnProcess(self, protocol: Any, executable: str, args: list[str], env: Any, childFDs: Any) -> None:
        assert executable == sys.executable and env is None
        process = Process(self, protocol, args, childFDs)
        self.processes.append(process)
        protocol.makeConnection(process)

    def stop(self) -> None:
        self.stops += 1


class CrewTests(SynchronousTestCase):
    def crew(self, size: int = 3, start: bool = True, **options: Any) -> Crew:
        self.reactor = ProcessReactor()
        self.left: list[int] = []
        crew = Crew(self.reactor, size, ["smtpd", "-c", "sink"], leave=self.left.append, **options)
        self.events: list[Any] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)
        if start:
            crew.start(SHARED)
            self.addCleanup(self.finish, crew)
        return crew

    def finish(self, crew: Crew) -> None:
        crew.drain(0)
        for process in self.processes:
            if not process.exited:
                process.end()

    @property
    def processes(self) -> list[Process]:
        return self.reactor.processes

    def serving(self, size: int = 3, **options: Any) -> Crew:
        crew = self.crew(size, **options)
        for number in range(size):
            self.processes[number].say(b"ready\n")
        return crew

    def errors(self) -> list[str]:
        return [e["log_format"].format(**e) for e in self.events if e["log_level"] > LogLevel.info]

    def test_the_first_one_proves_the_command_line(self) -> None:
        self.crew()
        self.assertEqual(len(self.processes), 1)
        self.processes[0].say(b"rea")
        self.assertEqual(len(self.processes), 1)
        self.processes[0].say(b"dy\n")
        self.assertEqual([p.assignment.number for p in self.processes], [1, 2, 3])
        self.assertEqual([p.assignment.announces for p in self.processes], [True, False, False])

    def test_each_gets_the_sockets_and_two_pipes_and_no_input(self) -> None:
        self.serving()
        for process in self.processes:
            descriptors = dict(process.descriptors)
            self.assertEqual(os.fstat(descriptors.pop(0)).st_rdev, os.stat(os.devnull).st_rdev)
            self.assertEqual(descriptors, {1: 1, 2: 2, 3: "w", 4: "r", 5: 40, 6: 41})
            self.assertEqual(
                [(one.key, one.descriptor, one.family) for one in process.assignment.sockets],
                [("inet 127.0.0.1 25", 5, socket.AF_INET), ("unix /run/s", 6, socket.AF_UNIX)],
            )
            self.assertEqual(process.arguments[-3:], ["smtpd", "-c", "sink"])

    def test_a_socket_from_systemd_keeps_its_number(self) -> None:
        crew = self.crew(1, start=False)
        crew.start([*SHARED, SharedSocket("fd 4", 42, socket.AF_INET, 4)])
        self.addCleanup(self.finish, crew)
        (process,) = self.processes
        descriptors = {new: old for new, old in process.descriptors.items() if new > 2}
        self.assertEqual(descriptors, {4: 42, 5: "w", 6: "r", 7: 40, 8: 41})
        self.assertEqual((process.assignment.hears, process.assignment.speaks), (5, 6))

    def test_a_first_one_that_can_not_start_ends_all_with_its_status(self) -> None:
        self.crew()
        self.processes[0].end(64)
        self.assertEqual((self.left, self.reactor.stops, len(self.processes)), ([64], 1, 1))
        self.assertIn("ended with status 64 before it could serve", self.errors()[0])

    def test_a_first_one_that_is_killed_ends_all_too(self) -> None:
        self.crew()
        self.processes[0].end(None, 9)
        self.assertEqual((self.left, self.reactor.stops), ([1], 1))

    def test_another_that_can_not_start_ends_all(self) -> None:
        crew = self.crew()
        self.processes[0].say(b"ready\n")
        self.processes[2].end(1)
        self.assertEqual((self.left, self.reactor.stops), ([1], 1))
        ended = crew.drain(1)
        self.assertEqual([p.told for p in self.processes], [[b"stop\n"], [b"stop\n"], []])
        self.processes[0].end(0)
        self.assertNoResult(ended)
        self.processes[1].end(0)
        self.successResultOf(ended)

    def test_another_that_is_killed_at_the_start_is_started_anew(self) -> None:
        self.crew()
        self.processes[0].say(b"ready\n")
        self.processes[2].end(None, 9)
        self.reactor.advance(FIRST_DELAY)
        self.assertEqual((self.left, [p.assignment.number for p in self.processes]), ([], [1, 2, 3, 3]))

    def test_one_that_dies_is_started_anew(self) -> None:
        self.serving()
        self.processes[1].end(None, 9)
        self.assertEqual(self.errors(), [f"worker 2 was killed by signal 9; another one starts in {FIRST_DELAY} s"])
        self.assertEqual(len(self.processes), 3)
        self.reactor.advance(FIRST_DELAY)
        self.assertEqual([p.assignment.number for p in self.processes], [1, 2, 3, 2])
        self.assertFalse(self.processes[3].assignment.announces)

    def test_one_that_ends_by_itself_is_started_anew(self) -> None:
        self.serving(1)
        self.processes[0].end(0)
        self.reactor.advance(FIRST_DELAY)
        self.assertEqual(len(self.processes), 2)

    def test_the_delay_grows_and_is_bounded(self) -> None:
        self.serving(1)
        delays = []
        for _ in range(10):
            self.processes[-1].end()
            (call,) = self.reactor.getDelayedCalls()
            delays.append(call.getTime() - self.reactor.seconds())
            self.reactor.advance(delays[-1])
        self.assertEqual(delays[:4], [FIRST_DELAY, 2 * FIRST_DELAY, 4 * FIRST_DELAY, 8 * FIRST_DELAY])
        self.assertEqual(delays[-2:], [LONGEST_DELAY, LONGEST_DELAY])

    def test_one_that_served_for_long_has_no_past(self) -> None:
        self.serving(1)
        for _ in range(2):
            self.processes[-1].end()
            self.reactor.advance(LONGEST_DELAY)
        self.processes[-1].say(b"ready\n")
        self.reactor.advance(SETTLED)
        self.processes[-1].end()
        self.reactor.advance(FIRST_DELAY)
        self.assertEqual(len(self.processes), 4)

    def test_all_drain_together(self) -> None:
        crew = self.serving()
        ended = crew.drain(10)
        self.assertEqual([p.told for p in self.processes], [[b"stop\n"]] * 3)
        for process in self.processes:
            self.assertNoResult(ended)
            process.end(0)
        self.successResultOf(ended)
        self.assertEqual((self.reactor.getDelayedCalls(), len(self.processes), self.errors()), ([], 3, []))

    def test_one_that_does_not_end_is_killed(self) -> None:
        crew = self.serving()
        ended = crew.drain(10)
        self.processes[0].end(0)
        self.reactor.advance(10 + MARGIN)
        self.assertEqual([p.signals for p in self.processes], [[], ["KILL"], ["KILL"]])
        for process in self.processes[1:]:
            process.end(None, 9)
        self.successResultOf(ended)

    def test_none_is_started_while_they_end(self) -> None:
        crew = self.serving()
        self.processes[0].end()
        crew.drain(1)
        self.reactor.advance(LONGEST_DELAY)
        self.assertEqual(len(self.processes), 3)

    def test_it_may_end_before_it_has_started(self) -> None:
        crew = self.crew(start=False)
        self.successResultOf(crew.drain(1))
        crew.start(SHARED)
        self.assertEqual(self.processes, [])

    def test_one_that_gets_ready_while_they_end_starts_no_others(self) -> None:
        crew = self.crew()
        crew.drain(1)
        self.processes[0].say(b"ready\n")
        self.assertEqual(len(self.processes), 1)

    def test_one_that_is_about_to_go_has_closed_its_pipe(self) -> None:
        crew = self.serving(1)
        self.processes[0].closed = True
        crew.drain(1)
        self.processes[0].exited = True
        crew.signal("HUP")

    def test_signals_go_to_those_that_can_take_them(self) -> None:
        crew = self.crew()
        crew.signal("HUP")
        self.processes[0].say(b"ready\n")
        crew.signal("HUP")
        self.assertEqual([p.signals for p in self.processes], [["HUP"], [], []])

    def test_metrics_of_all(self) -> None:
        crew = self.serving(2)
        readings = crew.collect()
        self.assertEqual([p.told for p in self.processes], [[b"metrics 1\n"]] * 2)
        self.processes[1].say(b'metrics 1 {"open": 2}\n')
        self.assertNoResult(readings)
        self.processes[0].say(b'metrics 1 {"open": 1}\n')
        self.assertEqual(self.successResultOf(readings), [Reading(1, {"open": 1}, 0), Reading(2, {"open": 2}, 0)])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_metrics_do_not_wait_for_one_that_is_silent_or_gone(self) -> None:
        crew = self.serving(3)
        readings = crew.collect()
        self.processes[0].end()
        self.processes[1].say(b"metrics 1 {}\n")
        self.reactor.advance(FIRST_DELAY)
        self.assertNoResult(readings)
        self.reactor.advance(PATIENCE)
        self.assertEqual(self.successResultOf(readings), [Reading(1, None), Reading(2, {}), Reading(3, None)])
        self.processes[2].say(b"metrics 1 {}\n")
        again = crew.collect()
        self.assertEqual(self.processes[3].told, [])
        self.processes[1].say(b"metrics 2 {}\n")
        self.processes[2].say(b"metrics 2 {}\n")
        self.assertEqual([r.values for r in self.successResultOf(again)], [None, {}, {}])

    def test_what_they_print_goes_to_the_log_where_they_have_no_output(self) -> None:
        self.serving(1, relay=True)
        (process,) = self.processes
        self.assertEqual((process.descriptors[1], process.descriptors[2]), ("r", "r"))
        process.protocol.childDataReceived(2, b"one\ntw")
        process.protocol.childDataReceived(2, b"o\n")
        said = [e["line"] for e in self.events if "line" in e]
        self.assertEqual(said, ["one", "two"])

    def test_a_line_without_end_is_not_kept(self) -> None:
        self.serving(1, relay=True)
        self.processes[0].protocol.childDataReceived(1, b"x" * (MAX_LINE + 1))
        self.assertEqual(len(next(e["line"] for e in self.events if "line" in e)), MAX_LINE + 1)


class FakeEndpoint:
    """Listens with the reactor it is made for, as endpoints do."""

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor

    def listen(self, factory: Any) -> Deferred[Any]:
        deferred: Deferred[Any] = Deferred()
        deferred.callback(self.reactor.listenTCP(25, factory))
        return deferred


class CrewServiceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.addCleanup(signal.signal, signal.SIGHUP, signal.getsignal(signal.SIGHUP))
        signal.signal(signal.SIGHUP, signal.SIG_DFL)

    def test_its_life(self) -> None:
        reactor = ProcessReactor()
        threads: list[Any] = []
        reactor.callFromThread = lambda function, *arguments: threads.append((function, arguments))  # type: ignore[attr-defined]
        binder: Any = type("Binder", (), {"shared": SHARED, "listenTCP": lambda self, port, factory: None})()
        crew = Crew(reactor, 2, [], leave=lambda status: None)
        service = CrewService(crew, binder, [Listener("x", FakeEndpoint(binder))], reactor=reactor, grace=3)  # type: ignore[arg-type]
        service.startService()
        reactor.processes[0].say(b"ready\n")
        hangup: Any = signal.getsignal(signal.SIGHUP)
        hangup(signal.SIGHUP, None)
        ((function, arguments),) = threads
        function(*arguments)
        self.assertEqual([p.signals for p in reactor.processes], [["HUP"], []])
        stopped = service.stopService()
        self.assertNoResult(stopped)
        self.assertEqual([p.told for p in reactor.processes], [[b"stop\n"]] * 2)
        self.assertEqual(reactor.getDelayedCalls()[0].getTime(), 3 + MARGIN)
        for process in reactor.processes:
            process.end(0)
        self.successResultOf(stopped)
        self.assertIs(signal.getsignal(signal.SIGHUP), signal.SIG_DFL)

    def test_the_status_is_said_at_the_very_end(self) -> None:
        registered: list[Any] = []
        self.patch(atexit, "register", lambda *call: registered.append(call))
        statuses: list[int] = []
        self.patch(service_module.os, "_exit", statuses.append)
        leave_with(64)
        self.assertEqual(statuses, [])
        ((function, status),) = registered
        function(status)
        self.assertEqual(statuses, [64])


class ArgumentsTests(SynchronousTestCase):
    def twist(self, *words: str) -> list[str]:
        top = TwistOptions()
        top.selectDefaultLogObserver()
        for word in words:
            name, _, value = word.partition("=")
            getattr(top, f"opt_{name}")(value)
        arguments, relay = twist_arguments(MemoryReactorClock(), top, ["-c", "sink"])
        self.assertFalse(relay)
        self.assertEqual((arguments[0], arguments[4:]), ("--reactor=default", ["smtpd", "-c", "sink"]))
        return arguments[1:4]

    def test_the_log_of_twist_is_the_workers_too(self) -> None:
        self.patch(sys, "stdout", io.StringIO())
        self.assertEqual(self.twist("log_format=text")[:2], ["--log-file=-", "--log-format=text"])
        self.assertEqual(self.twist("log_file=+", "log_format=json")[:2], ["--log-file=+", "--log-format=json"])
        self.assertEqual(self.twist("log_level=debug")[2], "--log-level=debug")

    def test_a_log_file_is_found_from_everywhere(self) -> None:
        name = self.mktemp()
        (said, *_) = self.twist(f"log_file={name}")
        self.assertEqual(said, f"--log-file={os.path.abspath(name)}")

    def test_other_programs_logs_are_written_by_the_parent(self) -> None:
        for top in (None, {"logfile": "x"}):
            arguments, relay = twist_arguments(MemoryReactorClock(), top, [])
            self.assertTrue(relay)
            self.assertIn("--log-file=+", arguments)

    def test_the_same_reactor(self) -> None:
        for kind in getReactorTypes():
            if kind.shortName in ("select", "poll", "epoll", "asyncio"):
                made = type("Reactor", (), {"__module__": kind.moduleName})()  # type: ignore[attr-defined]
                self.assertEqual(reactor_name(made), kind.shortName)
        self.assertEqual(reactor_name(Clock()), "default")

    def test_the_boot_line_says_all(self) -> None:
        assignment = Assignment(2, SHARED, 3, 4, announces=True)
        executable, option, _, path, told, *twist = boot_arguments(assignment, ["smtpd"])
        self.assertEqual((executable, option, twist), (sys.executable, "-c", ["smtpd"]))
        self.assertEqual(path.split("\n"), sys.path)
        self.assertEqual(Assignment.loads(told), assignment)


class WorkerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.patch(worker_module, "assigned", Assignment(2, [], 3, 4))
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            self.addCleanup(signal.signal, number, signal.getsignal(number))

    def test_it_becomes_twist_with_what_it_was_given(self) -> None:
        inheritable: list[Any] = []
        self.patch(os, "set_inheritable", lambda *call: inheritable.append(call))
        ran: list[Any] = []
        self.patch(runpy, "run_module", lambda name, **_: ran.append((name, sys.argv)))
        told = Assignment(3, [SharedSocket("inet  25", 5, socket.AF_INET)], 6, 7)
        self.patch(sys, "argv", ["-c", told.dumps(), "--log-file=+", "smtpd", "-c", "sink"])
        worker_module.main()
        self.assertEqual(ran, [("twisted", ["twist", "--log-file=+", "smtpd", "-c", "sink"])])
        self.assertEqual(worker_module.assigned, told)
        self.assertEqual(inheritable, [(6, False), (7, False), (5, False)])
        # A terminal sends these to all, and the parent speaks for all; ignored, they would be for children's children.
        for number in (signal.SIGINT, signal.SIGHUP):
            self.assertNotIn(signal.getsignal(number), (signal.SIG_DFL, signal.SIG_IGN, signal.default_int_handler))
            signal.raise_signal(number)

    def service(self) -> Any:
        reactor: Any = MemoryReactorClock()
        reactor.callFromThread = lambda function: function()
        self.stops = 0

        def stop() -> None:
            self.stops += 1
            if self.stops > 1:
                raise ReactorNotRunning

        reactor.stop = stop
        self.patch(worker_module, "StandardIO", self.connect)
        factory: Any = type("Factory", (), {"traffic": Traffic(Clock())})()
        port = Port()
        service = WorkerService(factory, [], reactor=reactor)
        service.startService()
        service._bound(Listener("x", port), port)  # type: ignore[arg-type]
        self.port = port
        self.reactor = reactor
        return service

    def connect(self, link: Any, incoming: int, outgoing: int, reactor: Any) -> None:
        self.assertEqual((incoming, outgoing), (3, 4))
        self.link = link
        self.pipe = StringTransport()
        link.makeConnection(self.pipe)

    def test_it_says_when_it_is_ready_and_takes_turns(self) -> None:
        self.service()
        self.assertEqual(self.pipe.value(), b"ready\n")
        self.port.doRead()
        self.assertEqual(self.port.accepted, [])
        self.reactor.advance(0)
        self.assertEqual(self.port.accepted, [BATCH])

    def test_it_says_how_it_is_doing(self) -> None:
        service = self.service()
        self.pipe.clear()
        self.link.dataReceived(b"metrics 17\n")
        word, number, values = self.pipe.value().split(b" ", 2)
        self.assertEqual((word, number), (b"metrics", b"17"))
        self.assertEqual(json.loads(values), snapshot(service.factory.traffic))

    def test_what_it_does_not_understand_changes_nothing(self) -> None:
        self.service()
        self.pipe.clear()
        self.link.dataReceived(b"dance\n")
        self.assertEqual((self.stops, self.pipe.value()), (0, b""))

    def test_it_stops_when_told_or_when_its_parent_is_gone(self) -> None:
        self.service()
        self.link.dataReceived(b"stop\n")
        self.assertEqual(self.stops, 1)
        self.link.connectionLost()
        self.assertEqual(self.stops, 2)

    def test_sigterm_on_top_of_that_is_no_error(self) -> None:
        self.service()
        for function, arguments, _ in self.reactor.whenRunningHooks:
            function(*arguments)
        self.link.dataReceived(b"stop\n")
        signal.raise_signal(signal.SIGTERM)
        self.assertEqual(self.stops, 2)

    def test_only_the_first_says_where_it_listens(self) -> None:
        said: list[Any] = []
        self.patch(worker_module.ServerService, "_announce", lambda service: said.append(service))
        self.service()
        self.assertEqual(said, [])
        self.patch(worker_module, "assigned", Assignment(1, [], 3, 4, announces=True))
        service = self.service()
        self.assertEqual(said, [service])

    def test_link_is_for_lines(self) -> None:
        self.assertEqual(Link(None).delimiter, b"\n")


class OptionsTests(SynchronousTestCase):
    def parse(self, *words: str) -> Options:
        options = Options(SocketReactor(self))
        options.parseOptions(words)
        return options

    def refused(self, *words: str) -> str:
        stderr = io.StringIO()
        self.patch(sys, "stderr", stderr)
        self.assertEqual(self.assertRaises(SystemExit, self.parse, *words).code, 64)
        self.assertEqual(stderr.getvalue().count("\n"), 1)
        return stderr.getvalue()

    def test_one_process_by_default(self) -> None:
        for words in ((), ("--workers=1",)):
            options = self.parse("-c", "sink", *words)
            self.assertFalse(options.supervising or options.is_worker)
            self.assertIsInstance(options.handler, Sink)

    def test_a_number_of_workers(self) -> None:
        for number in ("0", "257", "-1", "two", "1.5"):
            self.assertIn("--workers", self.refused(f"--workers={number}"))

    def test_the_parent_makes_no_handler(self) -> None:
        folder = Path(self.mktemp())
        options = self.parse("--workers=2", "-l", "127.0.0.1:0", "-c", "mailbox", str(folder))
        self.assertTrue(options.supervising)
        self.assertFalse(hasattr(options, "handler"))
        self.assertFalse(folder.exists())

    def test_the_parent_binds_and_passes_its_words_on(self) -> None:
        options = self.parse("--workers=2", "-c", "sink", "-l", "127.0.0.1:0")
        service: Any = makeService(options)
        self.assertIsInstance(service, CrewService)
        self.successResultOf(options.listeners[0].endpoint.listen(service.crew))
        self.assertEqual([one.key for one in options.binder.shared], ["inet 127.0.0.1 0"])  # type: ignore[union-attr]
        self.assertEqual(service.crew._twist[-5:], ["--workers=2", "-c", "sink", "-l", "127.0.0.1:0"])

    def test_a_worker_listens_on_what_it_was_given_and_has_no_page(self) -> None:
        reactor = SocketReactor(self)
        port = reactor.listenTCP(0, None, interface="127.0.0.1")
        given = SharedSocket("inet 127.0.0.1 2525", os.dup(port.fileno()), socket.AF_INET)
        self.patch(worker_module, "assigned", Assignment(1, [given], 3, 4))
        options = self.parse("--workers=2", "-c", "sink", "-l", "127.0.0.1:2525", "--metrics=127.0.0.1:0")
        self.assertTrue(options.is_worker and not options.supervising)
        self.assertIsInstance(makeService(options), WorkerService)
        adopted: Any = self.successResultOf(options.listeners[0].endpoint.listen(None))  # type: ignore[arg-type]
        self.addCleanup(adopted.socket.close)
        self.assertEqual(adopted.socket.getsockname(), port.socket.getsockname())

    def test_the_page_is_the_parents_own(self) -> None:
        options = self.parse("--workers=2", "-l", "127.0.0.1:0", "--metrics=127.0.0.1:0")
        self.successResultOf(options.metrics[0].endpoint.listen(None))  # type: ignore[arg-type]
        self.assertIsNone(next((one for one in options.binder.shared), None))  # type: ignore[union-attr]

    def test_there_must_be_a_port_to_share(self) -> None:
        self.assertIn("no port to share on stdio:", self.refused("--workers=2", "-l", "stdio:"))

    def test_systems_that_can_not_share_ports(self) -> None:
        from twisted_smtpd.workers import options

        fake: Any = type("os", (), {"name": "nt"})
        self.patch(options, "os", fake)
        self.assertIn("not on this system", self.refused("--workers=2"))
