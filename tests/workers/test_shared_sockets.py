"""Tests for :mod:`twisted_smtpd.workers.shared_sockets`."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from typing import Any

from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator, IReactorTCP
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.support.workers_fakes import Port, SocketReactor
from twisted_smtpd.handlers import Sink
from twisted_smtpd.workers.shared_sockets import BATCH, MOST_PATIENCE, Binder, Inheritor, take_turns


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
