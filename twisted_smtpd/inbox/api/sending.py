"""Sends a large answer as fast as the client reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

if TYPE_CHECKING:
    from twisted.web.server import Request

__all__ = ["CHUNK", "MAX_UNREAD", "STALLED", "Budget", "Sending", "abort"]

#: Octets that are written at once.
CHUNK = 2**16
#: Octets of answers that clients have not read yet.
MAX_UNREAD = 256 * 2**20
#: Seconds without progress after which a client makes room for others.
STALLED = 10.0


def abort(request: Any) -> None:
    """Close the connection of a request at once, whatever has not been sent."""
    transport = request.channel.transport
    (getattr(transport, "abortConnection", None) or transport.loseConnection)()


class Budget:
    """How much memory answers may take that clients have not read yet.

    :param clock: the provider of time.
    :ivar octets: how much they take.
    """

    def __init__(self, clock: Any) -> None:
        self._clock = clock
        self._sendings: dict[Sending, None] = {}
        self.octets = 0

    @property
    def now(self) -> float:
        """The time in seconds."""
        return float(self._clock.seconds())

    def allows(self, octets: int) -> bool:
        """Whether another answer may be sent; one alone may have any size.

        If there is no room for it, clients that have stopped reading lose their connections.
        """
        if not self._has_room(octets):
            latest = self.now - STALLED
            for sending in [one for one in self._sendings if one.progress <= latest]:
                sending.drop()
        return self._has_room(octets)

    def _has_room(self, octets: int) -> bool:
        return not self.octets or self.octets + octets <= MAX_UNREAD

    def begin(self, sending: Sending, octets: int) -> None:
        """An answer begins."""
        self._sendings[sending] = None
        self.octets += octets

    def end(self, sending: Sending, octets: int) -> None:
        """An answer has ended."""
        del self._sendings[sending]
        self.octets -= octets


@implementer(IPushProducer)
class Sending:
    """Writes octets to a request, and ends it.

    :param request: the request.
    :param octets: what is sent.
    :param budget: what it counts for, as long as it lasts.
    :ivar progress: when the client has last read something.
    """

    def __init__(self, request: Request, octets: bytes, budget: Budget) -> None:
        budget.begin(self, len(octets))
        request.notifyFinish().addBoth(lambda _: self._end())
        self._request: Any = request
        self._octets, self._offset, self._paused = octets, 0, False
        self._budget, self.progress = budget, budget.now

    def start(self) -> None:
        """Begin."""
        self._request.registerProducer(self, True)
        self.resumeProducing()

    def resumeProducing(self) -> None:
        self._paused, self.progress = False, self._budget.now
        while not self._paused and self._request is not None:
            chunk = self._octets[self._offset : self._offset + CHUNK]
            self._offset += CHUNK
            self._request.write(chunk)
            if self._offset >= len(self._octets):
                request, self._request = self._request, None
                request.unregisterProducer()
                request.finish()

    def pauseProducing(self) -> None:
        self._paused = True

    def stopProducing(self) -> None:
        self._request = None

    def drop(self) -> None:
        """Close the connection."""
        request, self._request = self._request, None
        if request is not None:
            # The request hears of its end in a later turn; the room is wanted now.
            self._end()
            abort(request)

    def _end(self) -> None:
        octets, self._octets = len(self._octets), b""
        if octets:
            self._budget.end(self, octets)
