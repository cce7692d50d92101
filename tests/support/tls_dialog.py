"""A client in memory that speaks real TLS with a server's protocol, from the start or after STARTTLS."""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL
from twisted.internet import _newtls
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.logger import formatEvent, globalLogPublisher
from twisted.protocols import tls
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure

from tests.support.fakes import Transport, make_factory
from tests.support.tls_helpers import Client as TLSSettings
from tests.support.tls_helpers import TLSTestCase
from twisted_smtpd.smtp import SMTP
from twisted_smtpd.tls import connection_creator


class TLSTransport(Transport):
    """Has ``startTLS``, which a TCP transport does in the same way."""

    TLS = False
    _tlsClientDefault = False
    protocol: Any
    dataBuffer = b""
    _tempDataBuffer = ()

    @property
    def streamingProducer(self) -> Any:
        return self.streaming

    def startTLS(self, context: Any, normal: bool = True) -> None:
        _newtls.startTLS(self, context, normal, Transport)

    def write(self, data: bytes) -> None:
        if self.TLS:
            self.protocol.write(data)
        else:
            super().write(data)

    @property
    def socket(self) -> TLSTransport:
        return self

    def send(self, data: bytes) -> int:
        """Past TLS, to the socket."""
        super().write(data)
        return len(data)

    def loseConnection(self) -> None:
        if self.TLS:
            self.protocol.loseConnection()
        else:
            super().loseConnection()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        if self.TLS:
            self.protocol.registerProducer(producer, streaming)
        else:
            super().registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        if self.TLS:
            self.protocol.unregisterProducer()
        else:
            super().unregisterProducer()


class Peer:
    """The client.

    :param protocol: the server's protocol, or the TLS protocol around it.
    :param split: whether what it sends arrives octet by octet.
    """

    def __init__(
        self, protocol: Any, clock: Clock, host: Any = "192.0.2.1", *, split: bool = False, transport: Any = None
    ) -> None:
        self.protocol = getattr(protocol, "wrappedProtocol", protocol)
        self.clock = clock
        self.split = split
        address = IPv4Address("TCP", host, 40000) if isinstance(host, str) else host
        self.transport = transport or TLSTransport(peerAddress=address)
        self.transport.protocol = protocol
        self.tls: SSL.Connection | None = None
        protocol.makeConnection(self.transport)
        self.greeting = self.read()

    # -- octets --------------------------------------------------------------------------------------------------------

    def deliver(self, data: bytes) -> None:
        """Have these octets arrive as they are."""
        for piece in [data[i : i + 1] for i in range(len(data))] if self.split else [data] if data else []:
            if self.transport.disconnected:
                return
            self.transport.protocol.dataReceived(piece)
        self.clock.advance(0)

    def read(self) -> bytes:
        """What the server has said, decrypted if there is TLS."""
        self.clock.advance(0)
        data: bytes = self.transport.value()
        self.transport.clear()
        return data if self.tls is None else self._decrypt(data)

    def send(self, data: bytes) -> bytes:
        """Send, in TLS if there is; what the server answered."""
        if self.tls is not None:
            self.tls.send(data)
            data = self._outgoing()
        self.deliver(data)
        return self.read()

    # -- TLS -----------------------------------------------------------------------------------------------------------

    def handshake(self, settings: TLSSettings | None = None, before: bytes = b"") -> bytes:
        """Do the handshake; returns what the server says right after it.

        :param before: arrives in one segment with the first flight.
        """
        settings = settings or TLSSettings()
        connection: Any = settings.clientConnectionForTLS(None)
        connection.set_connect_state()
        while True:
            try:
                connection.do_handshake()
            except SSL.WantReadError:
                self.deliver(before + _bio(connection))
                before = b""
            else:
                break
            data: bytes = self.transport.value()
            self.transport.clear()
            assert data, "the server has nothing to say"
            connection.bio_write(data)
        self.tls = connection
        self.deliver(self._outgoing())
        return self.read()

    def starttls(self, settings: TLSSettings | None = None) -> None:
        """EHLO, STARTTLS, handshake."""
        self.send(b"EHLO client.example\r\n")
        said = self.send(b"STARTTLS\r\n")
        assert said == b"220 2.0.0 Ready to start TLS\r\n", said
        self.handshake(settings)

    def _outgoing(self) -> bytes:
        return _bio(self.tls)

    def _decrypt(self, data: bytes) -> bytes:
        assert self.tls is not None
        if data:
            self.tls.bio_write(data)
        said = b""
        while True:
            try:
                said += self.tls.recv(2**16)
            except (SSL.WantReadError, SSL.ZeroReturnError):
                return said

    # -- the end -------------------------------------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        protocol = self.transport.protocol
        return bool(self.transport.disconnecting or getattr(protocol, "disconnecting", False))

    @property
    def aborted(self) -> bool:
        return bool(self.transport.disconnected)

    def lose(self, reason: BaseException | None = None) -> None:
        """Have the connection end."""
        self.transport.connected = False
        self.transport.protocol.connectionLost(Failure(reason or ConnectionDone()))


def _bio(connection: Any) -> bytes:
    data = b""
    while True:
        try:
            data += connection.bio_read(2**16)
        except SSL.WantReadError:
            return data


class SecureTestCase(TLSTestCase):
    """Servers with certificates, and their log."""

    def setUp(self) -> None:
        super().setUp()
        self.clock = Clock()
        # What Twisted offers for this: TLS gathers writes for the reactor's next turn.
        self.patch(tls, "_get_default_clock", lambda: self.clock)
        self.log: list[Any] = []
        globalLogPublisher.addObserver(self.log.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.log.append)

    def logged(self, text: str) -> list[str]:
        """The lines of the log that have this text."""
        lines = [formatEvent(event) for event in self.log]
        return [line for line in lines if text in line]

    def factory(self, handler: Any = None, protocol: type[SMTP] = SMTP, **options: Any) -> Any:
        return make_factory(handler, protocol, clock=self.clock, **options)

    def connect(self, handler: Any = None, host: Any = "192.0.2.1", split: bool = False, **options: Any) -> Peer:
        """A client of a new server."""
        return self.join(self.factory(handler, **options), host, split=split)

    def join(self, factory: Any, host: Any = "192.0.2.1", split: bool = False) -> Peer:
        return Peer(factory.buildProtocol(None), self.clock, host, split=split)

    def join_wrapped(self, factory: Any, creator: Any, split: bool = False) -> Peer:
        """A client of a server that listens on a ``ssl:`` endpoint."""
        wrapper = TLSMemoryBIOFactory(connection_creator(creator), False, factory, self.clock)
        return Peer(wrapper.buildProtocol(None), self.clock, split=split)
