"""The handler of a service: started before clients are served, stopped after the last; and how a start fails."""

from __future__ import annotations

import errno
import os
from typing import Any

from twisted.internet.abstract import FileDescriptor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.error import CannotListenError
from twisted.logger import LogLevel
from twisted.python.failure import Failure

from tests.support.lives import Beside, Living
from tests.test_service import FakeEndpoint, FakePort, ServiceCase
from twisted_smtpd.factory import SMTPFactory
from twisted_smtpd.handlers import Chain, HandlerStartError
from twisted_smtpd.runtime.listeners import Listener
from twisted_smtpd.service import ServerService


class NotingFactory(SMTPFactory):
    """Notes when it is drained."""

    def __init__(self, handler: object, events: list[str]) -> None:
        super().__init__(handler, hostname="mx.example")
        self.noted, self.drained = events, Deferred[None]()

    def drain(self, grace: float = 10.0) -> Deferred[None]:
        self.noted.append("drain")
        return self.drained


class NotingEndpoint(FakeEndpoint):
    def __init__(self, result: Any, events: list[str]) -> None:
        super().__init__(result)
        self.noted = events

    def listen(self, factory: Any) -> Any:
        self.noted.append("listen")
        return super().listen(factory)


class Offering(Living):
    """A handler with services.

    :param offered: the services.
    """

    def __init__(self, events: list[str], *offered: Any, **results: Any) -> None:
        super().__init__(events, **results)
        self.offered = offered

    async def services(self) -> Any:
        return self.offered


class HandlerCase(ServiceCase):
    def setUp(self) -> None:
        super().setUp()
        self.order: list[str] = []

    def serve(self, handler: object, *listeners: Listener) -> ServerService:
        factory = NotingFactory(handler, self.order)
        listeners = listeners or (Listener("127.0.0.1:1234", NotingEndpoint(self.port, self.order)),)
        service = self.service(*listeners, factory=factory)
        self.drained = factory.drained
        service.startService()
        return service

    def end(self, service: ServerService) -> None:
        stopped = service.stopService()
        self.assertNoResult(stopped)
        self.drained.callback(None)
        self.successResultOf(stopped)


class OrderTests(HandlerCase):
    def test_start_comes_before_clients_and_stop_after_draining(self) -> None:
        service = self.serve(Living(self.order))
        self.assertEqual(self.order, ["start", "listen"])
        self.end(service)
        self.assertEqual(self.order, ["start", "listen", "drain", "stop"])
        self.assertFalse(self.port.open)

    def test_nothing_is_taken_or_announced_before_a_start_has_ended(self) -> None:
        promise: Deferred[None] = Deferred()
        service = self.serve(Living(self.order, start=promise))
        self.assertEqual((self.order, self.said("places")), (["start"], []))
        promise.callback(None)
        self.assertEqual((self.order, self.said("places")), (["start", "listen"], ["127.0.0.1:1234"]))
        self.end(service)

    def test_services_run_between_start_and_stop(self) -> None:
        services = [Beside(self.order, "one"), Beside(self.order, "two")]
        service = self.serve(Offering(self.order, *services))
        self.assertEqual(self.order, ["start", "one start", "two start", "listen"])
        self.order.clear()
        self.end(service)
        self.assertEqual(self.order, ["drain", "two stop", "one stop", "stop"])

    def test_a_port_that_is_there_at_once_is_bound_first_but_accepts_nothing(self) -> None:
        port = ReadingPort(self.order)
        endpoint = TCP4ServerEndpoint(PortReactor(port), 1234)
        promise: Deferred[None] = Deferred()
        handler = Living(self.order, start=promise)
        self.serve(handler, Listener("127.0.0.1:1234", endpoint))
        self.assertEqual(self.order, ["bound", "deaf", "start"])
        self.assertEqual(handler.servers[0].addresses, (("127.0.0.1", 1234),))
        promise.callback(None)
        self.assertEqual(self.order, ["bound", "deaf", "start", "accepts"])

    def test_start_is_told_about_the_server(self) -> None:
        handler = Living()
        self.serve(handler)
        (server,) = handler.servers
        self.assertEqual(server.hostname, "mx.example")
        self.assertEqual(server.options["max_recipients"], 1000)
        self.assertTrue(hasattr(server.reactor, "callLater"))

    def test_a_stop_that_fails_is_logged_and_hinders_nothing(self) -> None:
        service = self.serve(Offering(self.order, Beside(self.order), stop=ZeroDivisionError()))
        self.end(service)
        self.assertEqual(self.order[-3:], ["drain", "service stop", "stop"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_a_service_that_fails_at_the_end_does_not_keep_the_handler_from_stopping(self) -> None:
        failing = Beside(self.order)
        failing.stopService = lambda: 1 // 0  # type: ignore[method-assign,assignment,return-value]
        service = self.serve(Offering(self.order, failing))
        self.end(service)
        self.assertEqual(self.order[-1], "stop")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class ReadingPort(FakePort, FileDescriptor):
    """A port as Twisted's own."""

    def __init__(self, events: list[str]) -> None:
        FakePort.__init__(self, IPv4Address("TCP", "127.0.0.1", 1234))
        self.noted = events

    def stopReading(self) -> None:
        self.noted.append("deaf")

    def startReading(self) -> None:
        self.noted.append("accepts")


class PortReactor:
    def __init__(self, port: Any) -> None:
        self.port = port

    def listenTCP(self, *arguments: Any, **options: Any) -> Any:
        self.port.noted.append("bound")
        return self.port


class FailureTests(HandlerCase):
    def failed(self, error: Exception) -> str:
        """The line on stderr after a start that fails."""
        service = self.serve(Living(self.order, start=error))
        self.assertTrue(self.reactor.stopped)
        self.end(service)
        self.assertEqual(self.order, ["start", "drain"], "neither listened nor stopped")
        ((status, line),) = self.left
        self.assertEqual((status, line.count("\n")), (1, 0))
        return line

    def critical(self) -> list[Any]:
        return [event for event in self.events if event["log_level"] is LogLevel.critical]

    def test_an_expected_error_is_one_line_and_no_traceback(self) -> None:
        for error, text in (
            (OSError(errno.EACCES, "Permission denied", "mail.db"), "[Errno 13] Permission denied: 'mail.db'"),
            (ValueError("no such\ntable"), "no such table"),
            (HandlerStartError("the database is from another version"), "the database is from another version"),
        ):
            self.order.clear()
            self.left.clear()
            self.events.clear()
            self.reactor.stopped = False
            self.assertEqual(self.failed(error), f"twist smtpd: handler Living: {text}")
            self.assertEqual([event for event in self.critical() if "log_failure" in event], [])
            self.assertEqual(len(self.critical()), 1)

    def test_any_other_error_has_its_traceback_in_the_log(self) -> None:
        line = self.failed(ZeroDivisionError("oh"))
        self.assertEqual(line, "twist smtpd: handler Living: ZeroDivisionError: oh")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_a_handler_is_stopped_when_a_port_can_not_be_bound_after_its_start(self) -> None:
        refused = CannotListenError("127.0.0.1", 1234, OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE)))
        service = self.serve(Living(self.order), Listener("x:1234", NotingEndpoint(refused, self.order)))
        self.assertTrue(self.reactor.stopped)
        self.end(service)
        self.assertEqual(self.order, ["start", "listen", "drain", "stop"])
        ((status, line),) = self.left
        self.assertEqual(status, 1)
        self.assertTrue(line.startswith("twist smtpd: can't listen on x:1234: "), line)

    def test_a_handler_is_stopped_when_a_service_can_not_start(self) -> None:
        services = (Beside(self.order, "one"), Beside(self.order, "two", error=ValueError("no port")))
        service = self.serve(Offering(self.order, *services))
        self.end(service)
        self.assertEqual(self.order, ["start", "one start", "two start", "drain", "two stop", "one stop", "stop"])
        self.assertEqual(self.left, [(1, "twist smtpd: handler Offering: no port")])

    def test_what_is_no_service_is_an_error(self) -> None:
        service = self.serve(Offering(self.order, "web"))
        self.end(service)
        self.assertIn("services() returned 'web', which is no IService", self.left[0][1])
        self.assertEqual(self.order[-1], "stop")
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)

    def test_a_start_that_hangs_is_cancelled_at_the_end(self) -> None:
        cancelled: list[Any] = []
        service = self.serve(Living(self.order, start=Deferred(cancelled.append)))
        self.assertEqual(len(self.said("handler")), 1, "it says what it waits for")
        self.end(service)
        self.assertEqual((len(cancelled), self.order, self.left), (1, ["start", "drain"], []))

    def test_a_start_that_ends_well_although_it_was_cancelled_is_followed_by_a_stop(self) -> None:
        started: Deferred[None] = Deferred(lambda promise: promise.callback(None))
        self.end(self.serve(Living(self.order, start=started)))
        self.assertEqual(self.order, ["start", "drain", "stop"])

    def test_an_error_while_it_is_cancelled_is_logged(self) -> None:
        failing: Deferred[None] = Deferred(lambda promise: promise.errback(Failure(OSError("half open"))))
        self.end(self.serve(Living(self.order, start=failing)))
        self.assertEqual(self.said("reason"), ["handler Living: half open"])
        self.assertEqual(self.left, [])

    def test_a_service_stopped_before_the_reactor_runs_starts_no_handler(self) -> None:
        self.reactor.runs = False
        service = self.serve(Living(self.order))
        self.end(service)
        self.reactor.advance(0)
        self.assertEqual(self.order, ["drain"])

    def test_the_first_of_a_chain_is_stopped_when_the_second_can_not_start(self) -> None:
        chain = Chain(Living(self.order, "one"), Living(self.order, "two", start=OSError("no")))
        service = self.serve(chain)
        self.end(service)
        self.assertEqual(self.order, ["one start", "two start", "one stop", "drain"])
        self.assertEqual(self.left, [(1, "twist smtpd: handler Chain: no")])
