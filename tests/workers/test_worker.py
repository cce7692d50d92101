"""A worker and what it is told: :mod:`twisted_smtpd.workers.worker`, the arguments, the options."""

from __future__ import annotations

import io
import json
import os
import runpy
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from twisted.application.reactors import getReactorTypes
from twisted.application.twist._options import TwistOptions
from twisted.internet.error import ReactorNotRunning
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.trial.unittest import SynchronousTestCase

from tests.support.workers_fakes import SHARED, Port, SocketReactor
from twisted_smtpd.factory import SMTPFactory
from twisted_smtpd.handlers import Sink
from twisted_smtpd.metrics.figures import Metric, snapshot
from twisted_smtpd.runtime.listeners import Listener
from twisted_smtpd.runtime.reactor_names import reactor_name
from twisted_smtpd.tap import Options, makeService
from twisted_smtpd.workers import worker as worker_module
from twisted_smtpd.workers.service import SupervisorService, twist_arguments
from twisted_smtpd.workers.shared_sockets import BATCH, SharedSocket
from twisted_smtpd.workers.worker import Assignment, Link, WorkerService, boot_arguments


class ArgumentsTests(SynchronousTestCase):
    def twist(self, *words: str) -> list[str]:
        top = TwistOptions()
        top.selectDefaultLogObserver()
        for word in words:
            name, _, value = word.partition("=")
            getattr(top, f"opt_{name}")(value)
        arguments, relay = twist_arguments(MemoryReactorClock(), top, ["-c", "sink"])
        self.assertFalse(relay)
        self.assertEqual((arguments[:2], arguments[5:]), (["twisted", "--reactor=default"], ["smtpd", "-c", "sink"]))
        return arguments[2:5]

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
        self.patch(sys, "argv", ["-c", told.dumps(), "twisted", "--log-file=+", "smtpd", "-c", "sink"])
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
        factory = SMTPFactory(Sink(), clock=Clock())
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
        metrics = [Metric.of_plain(plain) for plain in json.loads(values)]
        self.assertEqual(metrics, snapshot([service.factory.connections]))

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
        self.assertEqual(Link.delimiter, b"\n")


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
        self.assertIsInstance(service, SupervisorService)
        self.successResultOf(options.listeners[0].endpoint.listen(service.supervisor))
        self.assertEqual([one.key for one in options.binder.shared], ["inet 127.0.0.1 0"])  # type: ignore[union-attr]
        self.assertEqual(service.supervisor._twist[-5:], ["--workers=2", "-c", "sink", "-l", "127.0.0.1:0"])

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
        from twisted_smtpd.cli import workers as options

        fake: Any = type("os", (), {"name": "nt"})
        self.patch(options, "os", fake)
        self.assertIn("not on this system", self.refused("--workers=2"))
