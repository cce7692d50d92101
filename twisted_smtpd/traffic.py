"""The connections of one server: how many there are, from where, how much memory they take, and until when."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from twisted_smtpd.watch import Watch, Watched

__all__ = ["Connection", "Traffic", "limited_address"]


class Connection(Watched, Protocol):
    """What is counted here."""

    def shut_down(self) -> bool:
        """The server is stopping."""

    def abort(self) -> None:
        """Close at once."""


class Traffic:
    """The connections of one server.

    :param clock: the provider of time; ``None`` for the global reactor.
    :ivar connections: those that are served.
    :ivar per_address: how many of them there are for each address that is counted.
    :ivar buffered: octets of messages in memory.
    :ivar draining: whether the server is stopping.
    """

    def __init__(self, clock: IReactorTime | None) -> None:
        self.connections: set[Connection] = set()
        self.per_address: Counter[str] = Counter()
        self.buffered = 0
        self.draining = False
        self._drained: Deferred[None] | None = None
        self._clock = clock
        self._watch: Watch | None = None

    @property
    def watch(self) -> Watch:
        """The timers of all connections."""
        if self._watch is None:
            clock: Any = self._clock
            if clock is None:
                from twisted.internet import reactor

                clock = reactor
            self._watch = Watch(clock)
        return self._watch

    def admit(self, connection: Connection, address: str | None, limits: Mapping[str, Any]) -> str | None:
        """Count a new connection.

        :param address: the peer's, see :func:`limited_address`.
        :param limits: the values of ``max_connections`` and ``max_connections_per_address``.
        :returns: why it can't be served, or ``None``.
        """
        if self.draining:
            return "421 4.3.2 {hostname} is shutting down, try again later"
        if len(self.connections) >= limits["max_connections"]:
            return "421 4.3.2 {hostname} has too many connections, try again later"
        if address is not None:
            if 0 < limits["max_connections_per_address"] <= self.per_address[address]:
                return "421 4.7.0 {hostname} has too many connections from your address"
            self.per_address[address] += 1
        self.connections.add(connection)
        return None

    def dismiss(self, connection: Connection, address: str | None) -> None:
        """A connection has gone; nothing happens for one that was not admitted."""
        if connection not in self.connections:
            return
        self.connections.discard(connection)
        if address is not None:
            self.per_address[address] -= 1
            if not self.per_address[address]:
                del self.per_address[address]
        self._check_drained()

    def drain(self, grace: float) -> Deferred[None]:
        """Serve no more connections; see :meth:`twisted_smtpd.factory.SMTPFactory.drain`."""
        self.draining = True
        if self._drained is None:
            self._drained = Deferred()
            timer = self.watch.clock.callLater(grace, self._grace_over)
            self._drained.addBoth(lambda _: timer.cancel() if timer.active() else None)
            for connection in tuple(self.connections):
                connection.shut_down()
            self._check_drained()
        waiter: Deferred[None] = Deferred()
        self._drained.chainDeferred(waiter)
        return waiter

    def _grace_over(self) -> None:
        for connection in tuple(self.connections):
            connection.abort()

    def _check_drained(self) -> None:
        if self._drained is not None and not self.connections and not self._drained.called:
            self._drained.callback(None)


@lru_cache(maxsize=4096)
def limited_address(host: str) -> str | None:
    """The address that limits per address count, or ``None`` for those that are exempt: loopback, Unix sockets.

    An IPv6 client has a /64 to choose addresses from, so it is counted as one.
    """
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        elif not address.is_loopback:
            return str(ipaddress.ip_network((int(address) >> 64 << 64, 64)))
    return None if address.is_loopback else str(address)
