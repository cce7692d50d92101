"""Tests for :mod:`twisted_smtpd.service`."""

from __future__ import annotations

import errno
import io
import os
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import Clock
from twisted.logger import LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from twisted_smtpd.factory import SMTPFactory
from twisted_smtpd.handlers import Chain, Debugging, Sink
from twisted_smtpd.lmtp import LMTP
from twisted_smtpd.runtime.listeners import Listener
from twisted_smtpd.service import BindError, ServerService


@implementer(IListeningPort)
class FakePort:
    def __init__(self, address: Any) -> None:
        self.address, self.open = address, True

    def startListening(self) -> None:
        """Part of the interface; an endpoint's port listens already."""

    def getHost(self) -> Any:
        return self.address

    def stopListening(self) -> Deferred[None]:
        self.open = False
        return succeed(None)


class FakeEndpoint:
    def __init__(self, result: Any) -> None:
        self.result = result

    def listen(self, factory: Any) -> Any:
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


class FakeReactor(Clock):
    """Runs already: what is due now is done now."""

    stopped = False
    runs = True

    def stop(self) -> None:
        self.stopped = True

    def callLater(self, delay: float, callable: Any, *args: Any, **kwargs: Any) -> Any:
        call = super().callLater(delay, callable, *args, **kwargs)
        if self.runs and not delay:
            self.advance(0)
        return call


class FakeFactory(SMTPFactory):
    """Notes whether the ports were closed when it was told to drain."""

    def __init__(self, *ports: FakePort) -> None:
        super().__init__(Sink(), clock=Clock())
        self.ports, self.drained = ports, Deferred[None]()
        self.calls: list[tuple[float, list[bool]]] = []

    def drain(self, grace: float = 10.0) -> Deferred[None]:
        self.calls.append((grace, [port.open for port in self.ports]))
        return self.drained


class ServiceCase(SynchronousTestCase):
    """Tests of a service whose ports and reactor are fakes."""

    def setUp(self) -> None:
        self.events: list[dict[str, Any]] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)
        self.reactor = FakeReactor()
        self.left: list[tuple[int, str]] = []
        self.port = FakePort(IPv4Address("TCP", "127.0.0.1", 1234))
        self.good = Listener("127.0.0.1:1234", FakeEndpoint(self.port))

    def service(self, *listeners: Listener, factory: Any = None) -> ServerService:
        reactor: Any = self.reactor
        return ServerService(
            factory or FakeFactory(), listeners, reactor=reactor, grace=5.0, leave=lambda *said: self.left.append(said)
        )

    def refusing(self, number: int, *, optional: bool = False) -> Listener:
        error = CannotListenError("::1", 8025, OSError(number, os.strerror(number)))
        return Listener("[::1]:8025", FakeEndpoint(error), optional)

    def said(self, name: str) -> list[str]:
        return [event[name] for event in self.events if name in event]


class ServiceTests(ServiceCase):
    def test_says_where_it_listens_and_how_to_try_it(self) -> None:
        self.service(self.good).startService()
        self.assertEqual(self.said("places"), ["127.0.0.1:1234"])
        self.assertEqual(self.said("command"), ["swaks --server 127.0.0.1:1234 --to you@example.com"])

    def test_says_every_place(self) -> None:
        addresses = (IPv6Address("TCP", "::", 25), UNIXAddress(b"/run/a b"), UNIXAddress(None))
        others = [Listener("x", FakeEndpoint(FakePort(address))) for address in addresses]
        self.service(self.good, *others).startService()
        self.assertEqual(self.said("places"), ["127.0.0.1:1234 and [::]:25 and unix:'/run/a b' and unix:''"])

    def test_the_hint_fits_the_place(self) -> None:
        for name, address, hint in (
            ("0.0.0.0:25", IPv4Address("TCP", "0.0.0.0", 25), "swaks --server 127.0.0.1:25"),
            ("[::]:25", IPv6Address("TCP", "::", 25), "swaks --server [::1]:25"),
            ("unix:/run/smtp", UNIXAddress(b"/run/smtp"), "swaks --socket /run/smtp"),
            ("ssl:465", IPv4Address("TCP", "192.0.2.1", 465), "swaks --server 192.0.2.1:465 --tls-on-connect"),
        ):
            self.events.clear()
            self.service(Listener(name, FakeEndpoint(FakePort(address)))).startService()
            self.assertEqual(self.said("command"), [f"{hint} --to you@example.com"])
        self.events.clear()
        factory = FakeFactory()
        factory.protocol = LMTP
        self.service(self.good, factory=factory).startService()
        self.assertEqual(self.said("command"), ["swaks --protocol LMTP --server 127.0.0.1:1234 --to you@example.com"])

    def warned(self, handler: object) -> bool:
        self.events.clear()
        factory: Any = FakeFactory()
        factory.handler = handler
        self.service(self.good, factory=factory).startService()
        return any("WHAT IS PRINTED IS LOST" in event.get("log_format", "") for event in self.events)

    def test_a_warning_when_what_debugging_prints_goes_nowhere(self) -> None:
        with open(os.devnull, "w") as nowhere:
            self.assertTrue(self.warned(Debugging(nowhere)))
            self.assertTrue(self.warned(Chain(Sink(), Debugging(nowhere))))
        self.assertTrue(self.warned(Debugging(nowhere)), "closed")
        with open(self.mktemp(), "w") as file:
            self.assertFalse(self.warned(Debugging(file)))
        self.assertFalse(self.warned(Debugging(io.StringIO())))
        self.assertFalse(self.warned(Sink()))

    def test_an_endpoint_without_a_port_is_left_alone(self) -> None:
        factory = FakeFactory()
        factory.drained.callback(None)
        service = self.service(Listener("stdio:", FakeEndpoint(object())), factory=factory)
        service.startService()
        self.successResultOf(service.stopService())

    def test_a_port_that_cannot_be_bound_ends_the_program(self) -> None:
        error = self.assertRaises(SystemExit, self.service(self.good, self.refusing(errno.EADDRINUSE)).startService)
        self.assertEqual(error.code, f"twist smtpd: can't listen on [::1]:8025: {OSError(98, os.strerror(98))}")
        self.assertFalse(self.port.open, "the other port stays bound")

    def test_before_privileges_are_dropped_the_error_is_twistd_s(self) -> None:
        error = self.assertRaises(BindError, self.service(self.refusing(errno.EACCES)).privilegedStartService)
        self.assertIn("can't listen on [::1]:8025: ", str(error))

    def test_ports_are_bound_once(self) -> None:
        service = self.service(self.good)
        service.privilegedStartService()
        self.good.endpoint.result = AssertionError("bound a second time")  # type: ignore[attr-defined]
        service.startService()
        self.assertEqual(self.said("places"), ["127.0.0.1:1234"])

    def test_a_machine_without_ipv6_goes_on_with_a_note(self) -> None:
        for number in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            self.events.clear()
            self.service(self.good, self.refusing(number, optional=True)).startService()
            self.assertEqual(self.said("where"), ["[::1]:8025"])
            self.assertEqual(self.said("places"), ["127.0.0.1:1234"])

    def test_an_optional_port_that_is_in_use_is_fatal_still(self) -> None:
        refusing = self.refusing(errno.EADDRINUSE, optional=True)
        self.assertRaises(SystemExit, self.service(self.good, refusing).startService)

    def test_a_missing_address_that_was_asked_for_is_fatal(self) -> None:
        self.assertRaises(SystemExit, self.service(self.refusing(errno.EADDRNOTAVAIL)).startService)

    def test_a_late_refusal_stops_the_reactor(self) -> None:
        late = Deferred[Any]()
        self.service(Listener("onion:25", FakeEndpoint(late))).startService()
        self.assertEqual(self.said("places"), [])
        self.assertFalse(self.reactor.stopped)
        late.errback(RuntimeError("no tor"))
        self.assertTrue(self.reactor.stopped)
        (event,) = (event for event in self.events if event["log_level"] is LogLevel.critical)
        self.assertEqual(str(event["error"]), "can't listen on onion:25: no tor")

    def test_stops_listening_then_drains(self) -> None:
        factory = FakeFactory(self.port)
        service = self.service(self.good, factory=factory)
        service.startService()
        stopped = service.stopService()
        self.assertEqual(factory.calls, [(5.0, [False])])
        self.assertNoResult(stopped)
        factory.drained.callback(None)
        self.successResultOf(stopped)

    def test_a_listener_that_is_not_ready_is_given_up_at_the_end(self) -> None:
        late = Deferred[Any]()
        factory = FakeFactory()
        factory.drained.callback(None)
        service = self.service(Listener("onion:25", FakeEndpoint(late)), factory=factory)
        service.startService()
        self.successResultOf(service.stopService())
        self.assertTrue(late.called)
        self.assertFalse(self.reactor.stopped)
