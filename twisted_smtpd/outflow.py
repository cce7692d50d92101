"""What goes to the client: straight to the socket where that is possible, and never more than the client reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet import tcp, unix
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

__all__ = ["Outflow"]


def _nothing() -> None:
    """What is called when a connection is gone."""


@implementer(IPushProducer)
class Outflow:
    """Writes to a transport, and knows when the client doesn't read.

    :param transport: the connection's transport.
    :param now: gives the time in seconds.
    :param blocked: called when the transport is full.
    :param freed: called when the client reads again.
    :ivar blocked_since: since when the transport has been full, or ``None``.
    """

    def __init__(
        self, transport: Any, now: Callable[[], float], blocked: Callable[[], None], freed: Callable[[], None]
    ) -> None:
        self.transport = transport
        self.blocked_since: float | None = None
        self._now = now
        self._blocked = blocked
        self._freed = freed
        self._registered = False
        self._waiting: Deferred[None] | None = None
        # A subclass of these is something else, say a TLS transport: its write() may do more.
        self.direct = type(transport) in (tcp.Server, unix.Server)
        try:  # noqa: SIM105 - suppress() costs more than the system call
            transport.setTcpNoDelay(True)
        except (AttributeError, OSError):  # a Unix socket has no such option, and a string transport no socket
            pass

    def secure(self) -> None:
        """TLS starts on this transport: from now on nothing may go past it, to the socket."""
        self.direct = False

    def write(self, data: bytes) -> None:
        """Send, now or when the client reads."""
        transport = self.transport
        if self.direct and not transport.dataBuffer and not transport._tempDataBuffer:
            # Twisted's write() waits for the reactor's next turn and costs two more system calls.
            sent = transport.writeSomeData(data)
            if sent == len(data):
                return
            if not isinstance(sent, int):
                transport.abortConnection()
                return
            data = data[sent:]
        if not self._registered:
            self._registered = True
            transport.registerProducer(self, True)
        transport.write(data)

    async def drained(self) -> None:
        """Wait until the client has read enough."""
        if self.blocked_since is not None:
            if self._waiting is None:
                self._waiting = Deferred()
            waiter: Deferred[None] = Deferred()
            self._waiting.chainDeferred(waiter)
            await waiter

    def close(self) -> None:
        """Close the connection when everything is sent."""
        if self._registered:
            # A transport with a producer stays open for what the producer may yet send.
            self.transport.unregisterProducer()
        self.transport.loseConnection()

    def stop(self) -> None:
        """The connection is gone: whoever waits for it to drain need not."""
        self._release()
        # These lead back to the dialog: without the cycle a connection is freed at once, not by the garbage collector.
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
        """The connection is gone; the dialog hears it from the transport."""
