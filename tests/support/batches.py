"""For the tests of batches: real sockets, and a reactor that only takes notes."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet import tcp, unix
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IReactorFDSet
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.support.fakes import hooks
from twisted_smtpd.factory import SMTPFactory
from twisted_smtpd.runtime import batches as module
from twisted_smtpd.runtime.batches import Batches, joined


@implementer(IReactorFDSet)
class NotingReactor(Clock):
    """Notes who wants to read and write, and has :meth:`turn` for what an event loop does."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: list[Any] = []
        self.writers: list[Any] = []

    def addReader(self, reader: Any) -> None:
        if reader not in self.readers:
            self.readers.append(reader)

    def addWriter(self, writer: Any) -> None:
        if writer not in self.writers:
            self.writers.append(writer)

    def removeReader(self, reader: Any) -> None:
        if reader in self.readers:
            self.readers.remove(reader)

    def removeWriter(self, writer: Any) -> None:
        if writer in self.writers:
            self.writers.remove(writer)

    def getReaders(self) -> list[Any]:
        return self.readers

    def getWriters(self) -> list[Any]:
        return self.writers

    def removeAll(self) -> list[Any]:
        found = self.readers + self.writers
        self.readers, self.writers = [], []
        return found

    def turn(self) -> None:
        """One turn: timers, then whatever is ready."""
        self.advance(0)
        ready = select.select(self.readers, [], [], 0)[0]
        for reader in ready:
            reader.doRead()


class Port:
    """A listening port, as far as a connection knows it."""

    _realPortNumber = 25

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor


class Echo(Protocol):
    """Does with what arrives what it is told to."""

    def __init__(self, act: Callable[[Echo, bytes], object]) -> None:
        self.act = act
        self.reasons: list[Any] = []

    def dataReceived(self, data: bytes) -> None:
        self.act(self, data)

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008 - it has no state
        self.reasons.append(reason.value)


class BatchesTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        if not hasattr(select, "epoll"):
            self.skipTest("there is no epoll here")
        self.reactor = NotingReactor()
        self.port = Port(self.reactor)
        self.now = 0.0
        self.patch(module, "perf_counter", lambda: self.now)
        # The sockets here are Unix sockets, which pass on at once what they are sent; these have no such option.
        self.patch(tcp.Server, "setTcpNoDelay", lambda transport, enabled: None)

    def transport(self, protocol: Any, cls: type = tcp.Server) -> tuple[socket.socket, Any]:
        """A client's socket, and the server's transport."""
        client, accepted = socket.socketpair()
        self.addCleanup(client.close)
        client.setblocking(False)
        address: Any = ("192.0.2.1", 40000) if cls is not unix.Server else b""
        transport = cls(accepted, protocol, address, self.port, 1, self.port.reactor)
        self.addCleanup(lambda: transport.connected and transport.connectionLost(Failure(ConnectionDone())))
        protocol.makeConnection(transport)
        return client, transport

    def echo(self, act: Callable[[Echo, bytes], object], batches: Batches, cls: type = tcp.Server) -> Any:
        """A client of an :class:`Echo` in these batches, and its transport."""
        client, transport = self.transport(Echo(act), cls)
        self.assertIs(joined(transport, batches), batches)
        return client, transport

    def serve(self, factory: Any) -> tuple[socket.socket, Any]:
        """A client of an SMTP server, which has been greeted."""
        client, transport = self.transport(factory.buildProtocol(None))
        self.assertEqual(self.heard(client)[:4], b"220 ")
        return client, transport

    def factory(self, handler: Any = None, **options: Any) -> SMTPFactory:
        return SMTPFactory(handler or hooks(), hostname="mx.example", clock=self.reactor, **options)

    def heard(self, client: socket.socket) -> bytes:
        """What has arrived at a client."""
        try:
            return client.recv(2**20)
        except BlockingIOError:
            return b""

    def fill(self, transport: Any) -> None:
        """Have a transport wait until its client reads."""
        transport.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        transport.write(b"x" * 2**16)
        self.reactor.turn()
        self.assertNotEqual(transport.dataBuffer, b"")

    def flood(self, client: socket.socket, protocol: Any) -> None:
        """Ask for help until the server reads no more, then read: each reply has arrived, and whole."""
        for _ in range(2000):
            client.send(b"HELP\r\n" * 100)
            self.reactor.turn()
            if protocol.paused:
                break
        else:
            self.fail("a client that doesn't read is served on and on")
        said = b""
        while part := self.heard(client):
            said += part
            self.reactor.turn()
        self.assertEqual(said.count(b"\r\n"), said.count(b"214 "))
        self.assertEqual(said.count(b"214 ") % 100, 0)
