"""Turns: a connection with much to do yields to the others.

What a client has sent ahead is worked through until a millisecond has passed, or some commands; the rest waits here.
However many connections wait, they get one millisecond together in each turn of the reactor, so what others wait for
them does not grow with their number.  The addresses they come from take turns, and so do the connections of an address.
A step of a TLS handshake takes a turn as well.
"""

from __future__ import annotations

from collections import deque
from time import perf_counter
from typing import Any, Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOProtocol

from twisted_smtpd.runtime.batches import BatchReactor

__all__ = ["COMMANDS_AT_ONCE", "TIME_AT_ONCE", "Turns", "Yielding", "reactor_of"]

log = Logger()

#: Seconds, and commands, after which a connection yields.
TIME_AT_ONCE = 0.001
COMMANDS_AT_ONCE = 64


class Yielding(Protocol):
    """A connection that has yielded."""

    def take_turn(self) -> None:
        """Go on, for as long as a turn lasts."""

    def abort(self) -> None:
        """Close at once."""


def reactor_of(transport: Any) -> IReactorTime | None:
    """The reactor of a transport; ``None`` for one in memory, which keeps no other client waiting."""
    while isinstance(transport, TLSMemoryBIOProtocol):
        transport = transport.transport
    return getattr(transport, "reactor", None)


class Turns:
    """The connections of one server that wait for their turn."""

    def __init__(self) -> None:
        self._waiting: dict[object, deque[Yielding]] = {}
        self._due = False
        # The last turn of the batches in which a connection has begun at once.
        self._turn = 0

    def wait(self, connection: Yielding, address: str | None, reactor: IReactorTime) -> None:
        """Give a connection its turn when the reactor has served what else is ready.

        :param address: what it counts for; ``None`` for a connection that counts for itself.
        :param reactor: its reactor.
        """
        self._waiting.setdefault(connection if address is None else address, deque()).append(connection)
        self._call(reactor)

    def begin(self, connection: Yielding, address: str | None, reactor: IReactorTime) -> bool:
        """Let the first connection since the last turn begin at once; the others wait.

        :returns: whether it may begin; if not, :meth:`Yielding.take_turn` is called when it may.
        """
        if self._due:
            at_once = False
        elif isinstance(reactor, BatchReactor):
            # The batches count the turns, which costs less than to ask the reactor for one.
            at_once, self._turn = reactor.batches.turn != self._turn, reactor.batches.turn
        else:
            at_once = True
            self._call(reactor)
        if not at_once:
            self.wait(connection, address, reactor)
        return at_once

    def _call(self, reactor: IReactorTime) -> None:
        if not self._due:
            self._due = True
            reactor.callLater(0, self._run, reactor)

    def _run(self, reactor: IReactorTime) -> None:
        self._due = False
        until = perf_counter() + TIME_AT_ONCE
        for _ in range(sum(map(len, self._waiting.values()))):
            self._next()
            if perf_counter() > until:
                break
        if self._waiting:
            self._call(reactor)

    def _next(self) -> None:
        address = next(iter(self._waiting))
        queue = self._waiting.pop(address)
        connection = queue.popleft()
        if queue:
            self._waiting[address] = queue
        try:
            connection.take_turn()
        except Exception:
            # As where a reactor reads: it closes the connection whose protocol fails.
            log.failure("a connection failed")
            connection.abort()
