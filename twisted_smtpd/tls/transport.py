"""TLS on a socket that is served in batches: one pass through OpenSSL for what arrives, and one for what is sent.

Twisted's own layer (``TLSMemoryBIOProtocol``) serves any transport and any protocol.  It asks OpenSSL again after each
step until OpenSSL raises, joins small writes with a timer, and has each write pass the transport's buffers.  Here the
replies of a batch are joined already, and go to the socket at once.

Other transports, and TLS contexts of which this package does not know what they rely on, have Twisted's layer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from OpenSSL import SSL
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import ISSLTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_smtpd.runtime.output import Output
from twisted_smtpd.runtime.twisted_private import SocketTransport
from twisted_smtpd.tls.engine import Engine

__all__ = ["Secured", "TLSTransport"]


class Secured(Protocol):
    """A protocol on a TLS transport."""

    transport: Any
    _output: Output

    def dataReceived(self, data: bytes) -> object: ...

    def connectionLost(self, reason: Failure) -> object: ...

    def handshakeCompleted(self) -> object: ...


# Octets that may wait for the next reply, if no client waits for them.
MAY_WAIT = 2**10
# Octets that a client may send while its handshake waits for a turn; its certificates take 100 KB at most.
MAX_ARRIVED = 2**17


@implementer(ISSLTransport)
class TLSTransport:
    """Stands between a socket's transport and the protocol that speaks TLS from now on.

    :param transport: the socket's.
    :param protocol: the protocol; this becomes its transport.
    :param engine: the TLS connection.
    :param begin: asked before each step of the handshake: whether it may be done at once.  If not, it is done when
        :meth:`take_turn` is called.  ``None`` if it always may.
    :ivar disconnecting: whether this side has said that it will send no more.
    """

    # Twisted's transports have this name, too.
    TLS = True

    __slots__ = (
        *("_aborted", "_arrived", "_begin", "_ended", "_engine", "_handshaking", "_protocol", "_reason"),
        *("disconnecting", "transport"),
    )

    def __init__(
        self,
        transport: SocketTransport,
        protocol: Secured,
        engine: Engine,
        begin: Callable[[TLSTransport], bool] | None = None,
    ) -> None:
        self.transport: Any = transport
        self._protocol: Secured | None = protocol
        self._engine = engine
        self._handshaking = True
        self._begin = begin
        # What has arrived while the handshake waits for its turn; empty while it does not wait.
        self._arrived = b""
        # Whether TLS is over, so that what else arrives is not read.
        self._ended = False
        self._aborted = False
        self._reason: Failure | None = None
        self.disconnecting = False
        protocol.transport = self
        self.transport.protocol = self

    # -- for the socket ------------------------------------------------------------------------------------------------

    def dataReceived(self, data: bytes) -> None:
        """Octets have arrived from the network."""
        if self._handshaking:
            self._await_turn(data)
            return
        protocol, engine = self._protocol, self._engine
        if self._ended or protocol is None:
            return
        plain = engine.decrypt(data)
        if plain and not self._aborted:
            protocol.dataReceived(plain)
        # RFC 8446 section 4.6.3: a new key of the client is answered with one before the next reply.
        if engine.has_output and (due := engine.due(MAY_WAIT if plain else 1)):
            self._send(due)
        if engine.over is not None:
            self._over(engine.over)

    def _await_turn(self, data: bytes) -> None:
        """Go on with the handshake, or wait until it may."""
        waiting, self._arrived = bool(self._arrived), self._arrived + data
        if len(self._arrived) > MAX_ARRIVED:
            self.abortConnection()
        elif self._begin is None or (not waiting and self._begin(self)):
            self.take_turn()

    def take_turn(self) -> None:
        """Go on with the handshake."""
        data, self._arrived = self._arrived, b""
        protocol = self._protocol
        if self._aborted or self._ended or protocol is None:
            return
        if self._handshake(data, protocol):
            # There may be octets behind it.
            self.dataReceived(b"")

    def abort(self) -> None:
        """Close at once."""
        self.abortConnection()

    def _handshake(self, data: bytes, protocol: Secured) -> bool:
        """Do a step of the handshake; whether that was the last one."""
        try:
            done = self._engine.handshake(data)
        except SSL.Error as error:
            self._over(error)
            return False
        if done:
            self._handshaking = False
            # It refers to the connection: without this cycle both are freed at once, not by the garbage collector.
            self._begin = None
            # A greeting goes out together with the end of the handshake.
            protocol.handshakeCompleted()
        # With TLS 1.3 only tickets are left at the end, for which no client waits: they go out with the next reply.
        if due := self._engine.due(MAY_WAIT if done and self._engine.get_protocol_version_name() == "TLSv1.3" else 1):
            self._send(due)
        return done

    def _send(self, sealed: bytes) -> None:
        """Send at once, as Output does with replies."""
        transport = self.transport
        if transport.connected and not transport.dataBuffer and not transport._tempDataBuffer:
            try:
                sent = transport.socket.send(sealed)
            except OSError:
                # It fails again in write, which knows what the error means.
                sent = 0
            if sent == len(sealed):
                return
            sealed = sealed[sent:]
        transport.write(sealed)

    def _over(self, why: SSL.Error) -> None:
        """TLS is over: send close_notify or the alert, and close."""
        if self._ended:
            return
        if self._protocol is not None and not self._handshaking:
            # What came before close_notify may have replies.
            self._protocol._output.send_held()
        self._ended = True
        if isinstance(why, SSL.ZeroReturnError):
            self._say_goodbye()
        else:
            self._reason = Failure(why)
            self._send_due()
        self._close()

    def _say_goodbye(self) -> bool:
        """Send close_notify; whether the client's has arrived as well."""
        try:
            both = self._engine.shutdown()
        except SSL.Error:
            both = False
        self._send_due()
        return both

    def _send_due(self) -> None:
        if due := self._engine.due():
            self._send(due)

    def _close(self) -> None:
        # A transport with a producer stays open for what the producer may yet send.
        self.unregisterProducer()
        self.transport.loseConnection()

    def connectionLost(self, reason: Failure) -> None:
        """The socket is closed."""
        protocol, self._protocol = self._protocol, None
        if protocol is None:
            return
        self._begin = None
        if not self._ended:
            # Without close_notify an attacker may have cut the connection.
            self._reason = self._reason or Failure(ConnectionLost())
        self._ended = True
        protocol.connectionLost(self._reason or reason)

    def logPrefix(self) -> str:
        return type(self).__name__

    # -- for the protocol ----------------------------------------------------------------------------------------------

    @property
    def bufferSize(self) -> int:
        """Octets that are read from the socket at a time."""
        size: int = self.transport.bufferSize
        return size

    @bufferSize.setter
    def bufferSize(self, size: int) -> None:
        self.transport.bufferSize = size

    @property
    def reactor(self) -> Any:
        """The socket's reactor."""
        return self.transport.reactor

    @property
    def connected(self) -> bool:
        """Whether the socket is open."""
        return bool(self.transport.connected)

    def seal(self, data: bytes) -> bytes:
        """Encrypt octets that the caller sends to the socket.

        :returns: what is to be sent; nothing once TLS is over.
        """
        if self._ended or self.disconnecting:
            return b""
        try:
            return self._engine.encrypt(data)
        except SSL.Error as error:
            if self._engine.over is not None:
                # Nothing can be sent but the alert, which follows.
                return b""
            # OpenSSL wants to read first: a client has begun a new handshake where its context allows that.
            self._reason = Failure(error)
            self._ended = True
            self.transport.abortConnection()
            return b""

    def write(self, data: bytes) -> None:
        """Send octets."""
        if data and (sealed := self.seal(data)):
            self.transport.write(sealed)

    def writeSequence(self, data: Any) -> None:
        """Send pieces one after the other."""
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        """Send close_notify, and close when the client has answered with its own."""
        if self.disconnecting:
            return
        if self._handshaking:
            self.abortConnection()
            return
        self.disconnecting = True
        if not self._ended and self._say_goodbye():
            self._ended = True
            self._close()

    def abortConnection(self) -> None:
        """Close at once."""
        self._aborted = self.disconnecting = True
        self.transport.abortConnection()

    def getHandle(self) -> Engine:
        """The TLS connection."""
        return self._engine

    def getPeerCertificate(self) -> Any:
        """The client's certificate, or ``None``."""
        engine: Any = self._engine
        return engine.get_peer_certificate()

    def getPeer(self) -> Any:
        return self.transport.getPeer()

    def getHost(self) -> Any:
        return self.transport.getHost()

    def loseWriteConnection(self) -> None:
        """Close: TLS 1.2 has no half of a connection."""
        self.loseConnection()

    def getTcpNoDelay(self) -> Any:
        return self.transport.getTcpNoDelay()

    def getTcpKeepAlive(self) -> Any:
        return self.transport.getTcpKeepAlive()

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.transport.setTcpNoDelay(enabled)

    def setTcpKeepAlive(self, enabled: bool) -> None:
        self.transport.setTcpKeepAlive(enabled)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self.transport.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        if self.transport.producer is not None:
            self.transport.unregisterProducer()

    def pauseProducing(self) -> None:
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        self.transport.resumeProducing()

    def stopProducing(self) -> None:
        self.loseConnection()
