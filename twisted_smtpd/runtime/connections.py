"""The connections of one server: their number, their addresses, the memory they take, and their end."""

from __future__ import annotations

import ipaddress
from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol, TypedDict, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import Attribute, Interface

from twisted_smtpd.runtime.batches import Batches
from twisted_smtpd.runtime.histogram import Histogram
from twisted_smtpd.runtime.limits import Lines, Memory, Rates, most_connections
from twisted_smtpd.runtime.throttle import Throttle
from twisted_smtpd.runtime.timers import Timers
from twisted_smtpd.runtime.turns import Turns

__all__ = ["Connection", "Connections", "Counts", "ICounted", "limited_address"]


# Seconds, at least, that a connection which is closing has to end at shutdown.
LINGER = 1.0


class Connection(Protocol):
    """A connection that is counted here."""

    @property
    def closing(self) -> bool:
        """Whether it is ending: nothing more is read."""

    def shut_down(self) -> bool:
        """End soon, since the server is stopping; returns whether the connection is ending now."""

    def give_up(self) -> None:
        """Close soon, whatever is in progress; say so if the client can hear it."""

    def abort(self) -> None:
        """Close at once."""


class ConnectionLimits(TypedDict, total=False):
    """The options that decide on how many connections there may be."""

    max_connections: int
    max_connections_per_address: int
    connection_rate: int


class ICounted(Interface):
    """A protocol whose connection is one of a server's :class:`Connections`.

    A server that makes such a protocol sets both attributes before the connection is made, so that the connection
    counts for that server's limits, and ends when that server stops.
    """

    connections = Attribute("The :class:`Connections` of the server.")
    factory = Attribute("The server, as Twisted's protocols have their factory.")


@dataclass(eq=False)
class Counts:
    """What has happened since the server started.

    :ivar connections: clients that were served.
    :ivar turned_away: clients that got 421 instead of a greeting, because of a limit or since the server was stopping.
    :ivar accepted: messages that got a 2xx reply; over LMTP, where each recipient has a reply, such replies.
    :ivar deferred: the same for 4xx.
    :ivar refused: the same for 5xx.
    :ivar octets: content of the messages that got a reply.
    :ivar recipients: recipients of the messages that were accepted.
    :ivar took: seconds from a message's last octet to its reply.
    :ivar refusals: replies that said no, by verb and code.
    :ivar errors: mistakes of clients; a client with too many of them is cut off.
    :ivar hook_failures: hooks that raised, took too long or did not return a status.
    :ivar auth: attempts to sign in, by mechanism and result: ``success``, ``failure``, or ``blocked`` for an address
        that has failed too often.
    :ivar tls: TLS handshakes that succeeded, by version.
    :ivar tls_failures: TLS handshakes that failed.
    """

    connections: int = 0
    turned_away: int = 0
    accepted: int = 0
    deferred: int = 0
    refused: int = 0
    octets: int = 0
    recipients: int = 0
    took: Histogram = field(default_factory=Histogram)
    refusals: Counter[tuple[str, str]] = field(default_factory=Counter)
    errors: int = 0
    hook_failures: int = 0
    auth: Counter[tuple[str, str]] = field(default_factory=Counter)
    tls: Counter[tuple[str]] = field(default_factory=Counter)
    tls_failures: int = 0

    def judged(self, code: int) -> None:
        """Count the reply to a message, or to one of its recipients.

        :param code: the reply code.
        """
        if code < 400:
            self.accepted += 1
        elif code < 500:
            self.deferred += 1
        else:
            self.refused += 1


class Connections:
    """The connections of one server.

    :param clock: the provider of time; ``None`` for the global reactor.
    :ivar open: the connections that are served.
    :ivar most: how many there can be, whatever the options say.
    :ivar batches: the batches in which their sockets are served; ``None`` where that is not possible.
    :ivar per_address: the number of connections for each address that is counted.
    :ivar buffered: octets of messages in memory.
    :ivar draining: whether the server is stopping.
    :ivar grace_over: whether the time for messages in progress has ended.
    :ivar counts: what has happened since the start.
    :ivar sign_ins: slows down clients that guess passwords.
    :ivar turns: the connections that have yielded to others.
    :ivar rates: what each address has done in a minute.
    :ivar memory: what each address holds of the memory for messages.
    :ivar lines: how many lines of the log each address causes.
    """

    def __init__(self, clock: IReactorTime | None) -> None:
        self.open: set[Connection] = set()
        self.most = most_connections()
        self.batches: Batches | None = None
        self.per_address: Counter[str] = Counter()
        self.buffered = 0
        self.draining = self.grace_over = False
        self.counts = Counts()
        self.sign_ins = Throttle()
        self.turns = Turns()
        self.rates = Rates()
        self.memory = Memory()
        self.lines = Lines()
        self._hurried = False
        self._drained: Deferred[None] | None = None
        self._timers: list[IDelayedCall] = []
        self._clock = clock
        # Not a cached_property: that would make each other attribute slower to find.
        self._timers_of_all: Timers | None = None

    @property
    def timers(self) -> Timers:
        """The timers of all connections."""
        if self._timers_of_all is None:
            clock = self._clock
            if clock is None:
                from twisted.internet import reactor

                clock = cast(IReactorTime, reactor)
            self._timers_of_all = Timers(clock)
        return self._timers_of_all

    def hook_runs(self) -> None:
        """Note that a hook is about to run: the replies of its batch may have to wait."""
        if self.batches is not None:
            self.batches.hook_ran = True

    def admit(self, connection: Connection, address: str | None, limits: ConnectionLimits) -> str | None:
        """Count a new connection.

        :param address: the peer's, see :func:`limited_address`.
        :param limits: the values of ``max_connections``, ``max_connections_per_address`` and ``connection_rate``.
        :returns: why it can't be served, or ``None``.
        """
        refusal = self._refusal(limits)
        if refusal is None and address is not None:
            refusal = self._count(address, limits)
        if refusal is None:
            self.open.add(connection)
            self.counts.connections += 1
        else:
            self.counts.turned_away += 1
        return refusal

    def _refusal(self, limits: ConnectionLimits) -> str | None:
        if self.draining:
            return "421 4.3.2 {hostname} is shutting down, try again later"
        if len(self.open) >= limits["max_connections"] or len(self.open) >= self.most:
            return "421 4.3.2 {hostname} has too many connections, try again later"
        return None

    def _count(self, address: str, limits: ConnectionLimits) -> str | None:
        if 0 < limits["max_connections_per_address"] <= self.per_address[address]:
            return "421 4.7.0 {hostname} has too many connections from your address"
        if limits["connection_rate"] and not self.rates.another(
            "connections", address, limits["connection_rate"], self.timers.clock.seconds()
        ):
            return "421 4.7.0 {hostname} has had too many connections from your address, try again later"
        self.per_address[address] += 1
        return None

    def recount(self, before: str | None, address: str | None, limits: ConnectionLimits) -> str | None:
        """Count an admitted connection for another address: the address of a client behind a proxy is known now.

        :param before: the address that it was counted for.
        :param address: the address to count it for.
        :param limits: see :meth:`admit`.
        :returns: why it can't be served any longer, or ``None``.  If it can't be, nothing has changed.
        """
        if address == before:
            return None
        refusal = None if address is None else self._count(address, limits)
        if refusal is None and before is not None:
            self._uncount(before)
        return refusal

    def _uncount(self, address: str) -> None:
        self.per_address[address] -= 1
        if not self.per_address[address]:
            del self.per_address[address]

    def dismiss(self, connection: Connection, address: str | None) -> None:
        """Forget a connection that has ended.  One that was not admitted is ignored.

        :param address: the address that it was counted for.
        """
        if connection not in self.open:
            return
        self.open.discard(connection)
        if address is not None:
            self._uncount(address)
        if self._drained is not None:
            self._check_drained()

    def drain(self, grace: float) -> Deferred[None]:
        """Serve no more connections; see :meth:`twisted_smtpd.factory.SMTPFactory.drain`."""
        self.draining = True
        if self._drained is None:
            self._drained = Deferred()
            self._timers = [self.timers.clock.callLater(0.0 if self._hurried else grace, self.end_grace)]
            self._drained.addBoth(self._stop_timers)
            for connection in tuple(self.open):
                connection.shut_down()
            self._sweep(frozenset())
            self._check_drained()
        waiter: Deferred[None] = Deferred()
        self._drained.chainDeferred(waiter)
        return waiter

    def _sweep(self, closing_before: frozenset[Connection]) -> None:
        """Abort connections that were closing at the last look already.

        With TLS, a transport waits for the client's close_notify before it ends.
        """
        for connection in closing_before & self.open:
            connection.abort()
        if self.open:
            closing = frozenset(connection for connection in self.open if connection.closing)
            self._timers[1:] = [self.timers.clock.callLater(LINGER, self._sweep, closing)]

    def _stop_timers(self, _: object) -> None:
        for timer in self._timers:
            if timer.active():
                timer.cancel()

    def end_grace(self) -> None:
        """Give messages in progress no more time, now or when :meth:`drain` is called."""
        self._hurried = True
        if self.draining and not self.grace_over:
            self.grace_over = True
            for connection in tuple(self.open):
                connection.give_up()

    def _check_drained(self) -> None:
        if self._drained is not None and not self.open and not self._drained.called:
            self._drained.callback(None)


@lru_cache(maxsize=4096)
def limited_address(host: str) -> str | None:
    """The address that a client counts for in limits per address.

    An IPv6 client can choose addresses from a /64, so a whole /64 counts as one address.

    :returns: ``None`` for clients that are exempt: loopback addresses and Unix sockets.
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
