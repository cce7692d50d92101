"""The timers of all connections of one server, on a single DelayedCall."""

from __future__ import annotations

from math import inf
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

__all__ = ["Timed", "Timers"]

log = Logger()

# A deadline is met this many times as precisely as the shortest limit is long.
PRECISION = 64


class Timed(Protocol):
    """Something with deadlines."""

    def visit(self, now: float) -> float:
        """Do what is overdue; return the next deadline."""


class Timers:
    """Visits its connections when a deadline may be due.

    A connection's deadlines change with each command, but none can come sooner than the shortest limit from now.  So it
    is enough to look again when the earliest deadline known is due, and at the latest the shortest limit after the last
    look: a command then costs no timer call at all.

    :param clock: the reactor, or another provider of time.
    :ivar shortest: the shortest of the limits of all connections there were, in seconds.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self.clock = clock
        self.shortest = inf
        self.watched: set[Timed] = set()
        self._call: IDelayedCall | None = None

    def add(self, connection: Timed, shortest: float) -> None:
        """Visit this connection from now on.

        :param shortest: the shortest of its limits, in seconds, above 0.
        """
        self.watched.add(connection)
        if shortest < self.shortest:
            self.shortest = shortest
            if self._call is not None and self._call.getTime() > self.clock.seconds() + shortest:
                self._stop()
        if self._call is None:
            self._call = self.clock.callLater(self.shortest, self._look)

    def remove(self, connection: Timed) -> None:
        """Visit this connection no more; after the last one no timer is left behind."""
        self.watched.discard(connection)
        if not self.watched:
            self._stop()

    def _stop(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _look(self) -> None:
        self._call = None
        now = self.clock.seconds()
        following = now + self.shortest
        for connection in tuple(self.watched):
            try:
                following = min(following, connection.visit(now))
            except Exception:
                # One connection's trouble must not stop the clock of the others.
                log.failure("the time limits of a connection could not be looked after")
        if self.watched and self._call is None:
            self._call = self.clock.callLater(max(following - now, self.shortest / PRECISION), self._look)
