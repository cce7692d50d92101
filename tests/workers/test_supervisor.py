"""The parent of the workers: :mod:`twisted_smtpd.workers.supervisor`, and its service."""

from __future__ import annotations

import atexit
import os
import signal
import socket
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.support.workers_fakes import SHARED, Process, ProcessReactor
from twisted_smtpd.metrics.figures import Metric, Reading
from twisted_smtpd.runtime import exit_status, hangup
from twisted_smtpd.runtime.exit_status import leave_with
from twisted_smtpd.runtime.listeners import Listener
from twisted_smtpd.workers import supervisor as module
from twisted_smtpd.workers.service import SupervisorService
from twisted_smtpd.workers.shared_sockets import SharedSocket
from twisted_smtpd.workers.supervisor import FIRST_DELAY, LONGEST_DELAY, MARGIN, PATIENCE, SETTLED, Supervisor


class SupervisorTests(SynchronousTestCase):
    def supervisor(self, size: int = 3, start: bool = True, **options: Any) -> Supervisor:
        self.reactor = ProcessReactor()
        self.left: list[int] = []
        supervisor = Supervisor(self.reactor, size, ["smtpd", "-c", "sink"], leave=self.left.append, **options)
        self.events: list[Any] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)
        if start:
            supervisor.start(SHARED)
            self.addCleanup(self.finish, supervisor)
        return supervisor

    def finish(self, supervisor: Supervisor) -> None:
        supervisor.drain(0)
        for process in self.processes:
            if not process.exited:
                process.end()

    @property
    def processes(self) -> list[Process]:
        return self.reactor.processes

    def serving(self, size: int = 3, **options: Any) -> Supervisor:
        supervisor = self.supervisor(size, **options)
        for number in range(size):
            self.processes[number].say(b"ready\n")
        return supervisor

    def errors(self) -> list[str]:
        return [e["log_format"].format(**e) for e in self.events if e["log_level"] > LogLevel.info]

    def test_the_first_one_proves_the_command_line(self) -> None:
        self.supervisor()
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
        supervisor = self.supervisor(1, start=False)
        supervisor.start([*SHARED, SharedSocket("fd 4", 42, socket.AF_INET, 4)])
        self.addCleanup(self.finish, supervisor)
        (process,) = self.processes
        descriptors = {new: old for new, old in process.descriptors.items() if new > 2}
        self.assertEqual(descriptors, {4: 42, 5: "w", 6: "r", 7: 40, 8: 41})
        self.assertEqual((process.assignment.hears, process.assignment.speaks), (5, 6))

    def test_a_first_one_that_can_not_start_ends_all_with_its_status(self) -> None:
        self.supervisor()
        self.processes[0].end(64)
        self.assertEqual((self.left, self.reactor.stops, len(self.processes)), ([64], 1, 1))
        self.assertIn("ended with status 64 before it could serve", self.errors()[0])

    def test_a_first_one_that_is_killed_ends_all_too(self) -> None:
        self.supervisor()
        self.processes[0].end(None, 9)
        self.assertEqual((self.left, self.reactor.stops), ([1], 1))

    def test_another_that_can_not_start_ends_all(self) -> None:
        supervisor = self.supervisor()
        self.processes[0].say(b"ready\n")
        self.processes[2].end(1)
        self.assertEqual((self.left, self.reactor.stops), ([1], 1))
        ended = supervisor.drain(1)
        self.assertEqual([p.told for p in self.processes], [[b"stop\n"], [b"stop\n"], []])
        self.processes[0].end(0)
        self.assertNoResult(ended)
        self.processes[1].end(0)
        self.successResultOf(ended)

    def test_another_that_is_killed_at_the_start_is_started_anew(self) -> None:
        self.supervisor()
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
        supervisor = self.serving()
        ended = supervisor.drain(10)
        self.assertEqual([p.told for p in self.processes], [[b"stop\n"]] * 3)
        for process in self.processes:
            self.assertNoResult(ended)
            process.end(0)
        self.successResultOf(ended)
        self.assertEqual((self.reactor.getDelayedCalls(), len(self.processes), self.errors()), ([], 3, []))

    def test_one_that_does_not_end_is_killed(self) -> None:
        supervisor = self.serving()
        ended = supervisor.drain(10)
        self.processes[0].end(0)
        self.reactor.advance(10 + MARGIN)
        self.assertEqual([p.signals for p in self.processes], [[], ["KILL"], ["KILL"]])
        for process in self.processes[1:]:
            process.end(None, 9)
        self.successResultOf(ended)

    def test_none_is_started_while_they_end(self) -> None:
        supervisor = self.serving()
        self.processes[0].end()
        supervisor.drain(1)
        self.reactor.advance(LONGEST_DELAY)
        self.assertEqual(len(self.processes), 3)

    def test_it_may_end_before_it_has_started(self) -> None:
        supervisor = self.supervisor(start=False)
        self.successResultOf(supervisor.drain(1))
        supervisor.start(SHARED)
        self.assertEqual(self.processes, [])

    def test_one_that_gets_ready_while_they_end_starts_no_others(self) -> None:
        supervisor = self.supervisor()
        supervisor.drain(1)
        self.processes[0].say(b"ready\n")
        self.assertEqual(len(self.processes), 1)

    def test_one_that_is_about_to_go_has_closed_its_pipe(self) -> None:
        supervisor = self.serving(1)
        self.processes[0].closed = True
        supervisor.drain(1)
        self.processes[0].exited = True
        supervisor.signal("HUP")

    def test_signals_go_to_those_that_can_take_them(self) -> None:
        supervisor = self.supervisor()
        supervisor.signal("HUP")
        self.processes[0].say(b"ready\n")
        supervisor.signal("HUP")
        self.assertEqual([p.signals for p in self.processes], [["HUP"], [], []])

    def test_metrics_of_all(self) -> None:
        supervisor = self.serving(2)
        readings = supervisor.collect()
        self.assertEqual([p.told for p in self.processes], [[b"metrics 1\n"]] * 2)
        self.processes[1].say(b'metrics 1 [["two", "gauge", "", [["", {}, 2]]]]\n')
        self.assertNoResult(readings)
        self.processes[0].say(b'metrics 1 [["one", "gauge", "", [["", {}, 1]]]]\n')
        self.assertEqual(
            self.successResultOf(readings),
            [Reading(1, [Metric.gauge("one", "", 1)]), Reading(2, [Metric.gauge("two", "", 2)])],
        )
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_metrics_do_not_wait_for_one_that_is_silent_or_gone(self) -> None:
        supervisor = self.serving(3)
        readings = supervisor.collect()
        self.processes[0].end()
        self.processes[1].say(b"metrics 1 []\n")
        self.reactor.advance(FIRST_DELAY)
        self.assertNoResult(readings)
        self.reactor.advance(PATIENCE)
        self.assertEqual(self.successResultOf(readings), [Reading(1, None), Reading(2, []), Reading(3, None)])
        self.processes[2].say(b"metrics 1 []\n")
        again = supervisor.collect()
        self.assertEqual(self.processes[3].told, [])
        self.processes[1].say(b"metrics 2 []\n")
        self.processes[2].say(b"metrics 2 []\n")
        self.assertEqual([r.metrics for r in self.successResultOf(again)], [None, [], []])

    def test_what_they_print_goes_to_the_log_where_they_have_no_output(self) -> None:
        self.serving(1, relay=True)
        (process,) = self.processes
        self.assertEqual((process.descriptors[1], process.descriptors[2]), ("r", "r"))
        process.protocol.childDataReceived(2, b"one\ntw")
        process.protocol.childDataReceived(2, b"o\n")
        said = [e["line"] for e in self.events if "line" in e]
        self.assertEqual(said, ["one", "two"])

    def test_a_line_without_end_is_not_kept(self) -> None:
        # As large as it is, it would not fit into what a worker of trial tells its parent.
        self.patch(module, "MAX_LINE", 100)
        self.serving(1, relay=True)
        self.processes[0].protocol.childDataReceived(1, b"x" * 101)
        self.assertEqual(len(next(e["line"] for e in self.events if "line" in e)), 101)


class FakeEndpoint:
    """Listens with the reactor it is made for, as endpoints do."""

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor

    def listen(self, factory: Any) -> Deferred[Any]:
        deferred: Deferred[Any] = Deferred()
        deferred.callback(self.reactor.listenTCP(25, factory))
        return deferred


class SupervisorServiceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.addCleanup(signal.signal, signal.SIGHUP, signal.getsignal(signal.SIGHUP))
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        # Whatever these tests are run on.
        self.patch(hangup, "_has_terminal", lambda: False)

    def test_its_life(self) -> None:
        reactor = ProcessReactor()
        threads: list[Any] = []
        reactor.callFromThread = lambda function, *arguments: threads.append((function, arguments))  # type: ignore[attr-defined]
        binder: Any = type("Binder", (), {"shared": SHARED, "listenTCP": lambda self, port, factory: None})()
        supervisor = Supervisor(reactor, 2, [], leave=lambda status: None)
        service = SupervisorService(supervisor, binder, [Listener("x", FakeEndpoint(binder))], reactor=reactor, grace=3)  # type: ignore[arg-type]
        service.startService()
        reactor.processes[0].say(b"ready\n")
        heard: Any = signal.getsignal(signal.SIGHUP)
        heard(signal.SIGHUP, None)
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
        self.patch(exit_status.os, "_exit", statuses.append)
        leave_with(64)
        self.assertEqual(statuses, [])
        ((function, status),) = registered
        function(status)
        self.assertEqual(statuses, [64])
