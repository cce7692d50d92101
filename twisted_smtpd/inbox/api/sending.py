"""Sends a large answer as fast as the client reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

if TYPE_CHECKING:
    from twisted.web.server import Request

__all__ = ["CHUNK", "MAX_UNREAD", "Budget", "Sending"]

#: Octets that are written at once.
CHUNK = 2**16
#: Octets of answers that clients have not read yet.
MAX_UNREAD = 256 * 2**20


class Budget:
    """How much memory answers may take that clients have not read yet."""

    def __init__(self) -> None:
        self.octets = 0

    def allows(self, octets: int) -> bool:
        """Whether another answer may be sent; one alone may have any size."""
        return not self.octets or self.octets + octets <= MAX_UNREAD


@implementer(IPushProducer)
class Sending:
    """Writes octets to a request, and ends it.

    :param request: the request.
    :param octets: what is sent.
    :param budget: what it counts for, as long as it lasts.
    """

    def __init__(self, request: Request, octets: bytes, budget: Budget) -> None:
        budget.octets += len(octets)
        request.notifyFinish().addBoth(lambda _: self._end(budget))
        self._request: Any = request
        self._octets, self._offset, self._paused = octets, 0, False

    def start(self) -> None:
        """Begin."""
        self._request.registerProducer(self, True)
        self.resumeProducing()

    def resumeProducing(self) -> None:
        self._paused = False
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

    def _end(self, budget: Budget) -> None:
        budget.octets -= len(self._octets)
        self._octets = b""
