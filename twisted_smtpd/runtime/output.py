"""The way out of a connection: replies go straight to the socket, and stop while the client does not read."""

from __future__ import annotations

from collections.abc import Callable
from errno import ENOBUFS, EWOULDBLOCK
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator, IPushProducer
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from twisted_smtpd.runtime.batches import PLAIN_TRANSPORTS, Batches
from twisted_smtpd.runtime.twisted_private import DIRECT_TLS, SOCKETS, SocketTransport

__all__ = ["Output"]


def _nothing() -> None:
    """Stands for the callbacks of a connection that is gone."""


@implementer(IPushProducer)
class Output:
    """Writes to a transport, and knows when the client doesn't read.

    :param transport: the connection's transport, of any kind: what it has beyond ``ITCPTransport`` is used only where
        it is ``direct``.
    :param now: gives the time in seconds.
    :param blocked: called when the transport is full.
    :param freed: called when the client reads again.
    :param batches: the batches in which the connection is served; replies wait for the end of a batch.
    :ivar blocked_since: the time in seconds since which the transport has been full, or ``None``.
    :ivar direct: whether replies go to the socket itself, past the transport's buffers.
    """

    __slots__ = (
        *("_blocked", "_freed", "_held", "_now", "_registered", "_batches", "_seal", "_socket", "_tls", "_waiting"),
        *("blocked_since", "direct", "transport"),
    )

    def __init__(
        self,
        transport: SocketTransport,
        now: Callable[[], float],
        blocked: Callable[[], None],
        freed: Callable[[], None],
        batches: Batches | None = None,
    ) -> None:
        self.transport: Any = transport
        # Where octets go: past a layer that has them sealed.
        self._socket = transport
        self._seal: Callable[[bytes], bytes] | None = None
        self.blocked_since: float | None = None
        self._now = now
        self._blocked = blocked
        self._freed = freed
        self._registered = False
        self._waiting: Deferred[None] | None = None
        self._batches = batches
        self._held = b""
        self.direct = type(transport) in PLAIN_TRANSPORTS and SOCKETS.is_there()
        self._tls: TLSMemoryBIOProtocol | None = None
        if not self.direct:
            self._write_past(transport)
        try:  # noqa: SIM105 - suppress() costs more than the system call
            transport.setTcpNoDelay(True)
        except (AttributeError, OSError):  # a Unix socket has no such option, and a string transport no socket
            pass

    def _write_past(self, layer: object) -> None:
        """From now on, encrypt what is sent at once, if this is a layer of TLS that could put it off."""
        if isinstance(layer, TLSMemoryBIOProtocol) and DIRECT_TLS.is_there():
            self._tls = layer

    def start_tls(self, creator: IOpenSSLServerConnectionCreator) -> None:
        """Start TLS on this transport.  From now on all replies go through TLS, none straight to the socket.

        :param creator: see :meth:`twisted.internet.interfaces.ITLSTransport.startTLS`.
        """
        self.send_held()
        self.direct = False
        self.transport.startTLS(creator)
        self._write_past(getattr(self.transport, "protocol", None))

    def seal_with(self, layer: Any, seal: Callable[[bytes], bytes]) -> None:
        """From now on, send what a function makes of each reply; only where replies go straight to the socket.

        :param layer: the transport to close the connection with.
        :param seal: encrypts a reply.
        """
        self.send_held()
        self.transport, self._seal = layer, seal

    def write(self, data: bytes) -> None:
        """Send: now, at the end of the batch, or when the client reads."""
        if self._held:
            # A second write in one batch: send both now, since a hook may go on writing without end.
            self._held += data
        else:
            self._held = data
            batches = self._batches
            if batches is not None and batches.holding and self.direct:
                batches.senders.append(self)
                return
        self.send_held()

    def send_held(self) -> None:
        """Send what waits for the end of the batch."""
        data, self._held = self._held, b""
        if not data:
            return
        if self._seal is not None:
            data = self._seal(data)
        transport = self._socket
        if self.direct and not transport.dataBuffer and not transport._tempDataBuffer:
            # Twisted's write() waits for the reactor's next turn and costs two more system calls.
            try:
                sent = transport.socket.send(data)
            except OSError as error:
                if error.errno not in (EWOULDBLOCK, ENOBUFS):
                    self.transport.abortConnection()
                    return
                sent = 0
            if sent == len(data):
                return
            data = data[sent:]
        if not self._registered:
            self._registered = True
            transport.registerProducer(self, True)
        if self._tls is None:
            transport.write(data)
        else:
            # Twisted's TLS transports put small writes off to the reactor's next turn, to join them.  Ours are joined.
            TLSMemoryBIOProtocol.write(self._tls, data)

    async def drained(self) -> None:
        """Wait until the client has read enough."""
        self.send_held()
        if self.blocked_since is not None:
            if self._waiting is None:
                self._waiting = Deferred()
            waiter: Deferred[None] = Deferred()
            self._waiting.chainDeferred(waiter)
            await waiter

    def close(self) -> None:
        """Close the connection when everything is sent."""
        if self._seal is not None and self._held:
            # By way of the layer, which sends it together with its close_notify.
            data, self._held = self._held, b""
            self.transport.write(data)
        self.send_held()
        if self._registered:
            # A transport with a producer stays open for what the producer may yet send.
            self.transport.unregisterProducer()
        self.transport.loseConnection()

    def stop(self) -> None:
        """The connection is gone: end the waiting in :meth:`drained`."""
        self._release()
        self._held = b""
        self._seal = None
        # These refer to the connection.  Without this cycle it is freed at once, not by the garbage collector.
        self._blocked = self._freed = _nothing

    def _release(self) -> None:
        self.blocked_since = None
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            waiting.callback(None)

    def pauseProducing(self) -> None:
        if self.blocked_since is None:
            self.blocked_since = self._now()
        self._blocked()

    def resumeProducing(self) -> None:
        self._release()
        self._freed()

    def stopProducing(self) -> None:
        """The connection is gone.  The transport tells the protocol, so nothing is to be done here."""
