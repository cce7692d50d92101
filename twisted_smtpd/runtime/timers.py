"""The timers of all connections of one server, on a single DelayedCall."""

from __future__ import annotations

from math import inf
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from twisted_smtpd.runtime.steady import differences

__all__ = ["Timed", "Timers"]

log = Logger()

# Two visits are at least this fraction of the shortest limit apart, so a deadline is met with that precision.
PRECISION = 64

# A visit that is late by so many seconds was not put off by work, but by a clock that was set back.
LATE = 60.0


class Timed(Protocol):
    """Something with deadlines."""

    def visit(self, now: float) -> float:
        """Do what is overdue; return the next deadline."""


class Timers:
    """Visits its connections when a deadline may be due.

    A connection's deadlines change with each command, but a new deadline is never sooner than the shortest limit from
    now.  So the connections are visited when the earliest known deadline is due, and at the latest when the shortest
    limit has passed since the last visit.  A command then costs no call of a timer.

    Deadlines are of a time that does not jump (see :mod:`twisted_smtpd.runtime.steady`).  A reactor's own timers may
    still be late, if the machine's clock is set back; so the connections are visited at a new connection then.

    :param clock: the reactor, or another provider of time.
    :ivar now: gives the time in seconds.
    :ivar shortest: the shortest limit of all connections so far, in seconds.
    :ivar watched: the connections.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self.clock = clock
        self.now = differences(clock)
        self.shortest = inf
        self.watched: set[Timed] = set()
        self._call: IDelayedCall | None = None
        self._due = 0.0

    def add(self, connection: Timed, shortest: float) -> None:
        """Visit this connection from now on.

        :param shortest: the shortest of its limits, in seconds, above 0.
        """
        self.watched.add(connection)
        if shortest < self.shortest:
            self.shortest = shortest
            if self._call is not None and self._due > self.now() + shortest:
                self._stop()
        if self._call is None:
            self._schedule(self.shortest)
        elif self._due + LATE < self.now():
            self._stop()
            self._schedule(0.0)

    def remove(self, connection: Timed) -> None:
        """Stop visiting this connection.  Without connections there is no timer either."""
        self.watched.discard(connection)
        if not self.watched:
            self._stop()

    def _stop(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _schedule(self, delay: float) -> None:
        self._due = self.now() + delay
        self._call = self.clock.callLater(delay, self._look)

    def _look(self) -> None:
        self._call = None
        now = self.now()
        following = now + self.shortest
        for connection in tuple(self.watched):
            if connection not in self.watched:
                # What was due for another one has ended it.
                continue
            try:
                following = min(following, connection.visit(now))
            except Exception:
                # An error in one connection must not stop the time limits of the others.
                log.failure("the time limits of a connection could not be looked after")
        if self.watched and self._call is None:
            self._schedule(max(following - now, self.shortest / PRECISION))
