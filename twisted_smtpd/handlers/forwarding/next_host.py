"""The connections to the next host, or to one of several: kept, and limited in number."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_smtpd.handlers.forwarding.client import ClientError, SMTPClient
from twisted_smtpd.handlers.forwarding.hosts import Route
from twisted_smtpd.metrics.figures import Metric, histogram, total
from twisted_smtpd.runtime.histogram import Histogram
from twisted_smtpd.wire.escaping import quoted_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from twisted.internet.interfaces import IDelayedCall, IReactorTime

    from twisted_smtpd.handlers.forwarding.credentials import SignIn

__all__ = ["NextHost", "metrics_of"]

log = Logger()


class NextHost:
    """The host that messages are forwarded to: the first of some that can be reached.

    :param routes: the hosts, in order.
    :param clock: the provider of time.
    :param lmtp: whether it speaks LMTP.
    :param sign_in: knows how to authenticate; ``None`` if that is not needed.
    :param timeout: seconds it may be silent, and that a connection may take to be made or to become free.
    :param max_connections: connections at the same time, the kept ones included.
    :param per_client: how many of them one client may have; ``None`` for a quarter.
    :param keep: seconds an unused connection is kept.
    :ivar routes: the hosts.
    :ivar extensions: what the last greeting offered, or ``None`` before the first one.
    """

    def __init__(
        self,
        routes: Sequence[Route],
        clock: IReactorTime,
        *,
        lmtp: bool,
        sign_in: SignIn | None,
        timeout: float,
        max_connections: int,
        per_client: int | None = None,
        keep: float,
    ) -> None:
        self.routes = routes
        self._clock = clock
        self._lmtp = lmtp
        self._sign_in = sign_in
        self._timeout = timeout
        self._max_connections = max_connections
        self._per_client = per_client or max(1, max_connections // 4)
        self._keep = keep
        self.extensions: dict[str, str] | None = None
        self._connections = 0
        self._open: set[SMTPClient] = set()
        self._route_of: dict[SMTPClient, Route] = {}
        # The last used is used next, so that connections which are not needed expire.
        self._kept: dict[SMTPClient, IDelayedCall] = {}
        # Who waits, in the order in which they came, each with the client it waits for.
        self._waiting: dict[Deferred[None], str | None] = {}
        self._held: Counter[str] = Counter()
        self._holders: dict[SMTPClient, str] = {}

    async def acquire(self, hostname: str, holder: str | None = None) -> SMTPClient:
        """A connection, ready for a transaction; it is given back with :meth:`release`.

        :param hostname: our name.
        :param holder: the address of the client it is for; ``None`` for one that has no share, but any number.
        :raises ClientError: if no connection can be made, or becomes free.
        """
        while not (self._has_share(holder) and (self._kept or self._connections < self._max_connections)):
            await self._turn(holder)
        if holder is not None:
            self._held[holder] += 1
        try:
            client = self._kept_one() or await self._connect(hostname)
        except BaseException:
            self._no_longer_held(holder)
            raise
        if holder is not None:
            self._holders[client] = holder
        return client

    @property
    def connections(self) -> int:
        """How many there are, the kept ones included."""
        return self._connections

    def seconds(self) -> float:
        """The time, for measurements."""
        return self._clock.seconds()

    def _kept_one(self) -> SMTPClient | None:
        best = next(self._in_order())
        while self._kept:
            client, timer = self._kept.popitem()
            timer.cancel()
            if self._route_of[client] is best or not best.is_up(self._clock.seconds()):
                client.reused = True
                return client
            # A host before it can be reached again.
            client.quit()
        return None

    def _in_order(self) -> Iterator[Route]:
        """The hosts in the order in which they are tried: those that have failed a moment ago come last."""
        now = self._clock.seconds()
        yield from sorted(self.routes, key=lambda route: not route.is_up(now))

    def _has_share(self, holder: str | None) -> bool:
        return holder is None or self._held[holder] < self._per_client

    def _no_longer_held(self, holder: str | None) -> None:
        if holder is not None:
            self._held[holder] -= 1
            if not self._held[holder]:
                del self._held[holder]
            self._next_turn()

    async def _turn(self, holder: str | None) -> None:
        """Wait until a connection is free, or may be made, for a client."""
        turn: Deferred[None] = Deferred()
        self._waiting[turn] = holder
        try:
            await turn.addTimeout(self._timeout, self._clock)
        except DeferredTimeout:
            text = "Too many messages for the next host"
            raise ClientError(f"no connection free in {self._timeout:g} s", "4.4.5", text) from None
        finally:
            self._waiting.pop(turn, None)

    def _next_turn(self) -> None:
        """Let one go on that waits: of those below their share, the first one of the client that has least."""
        if self._kept or self._connections < self._max_connections:
            able = [turn for turn, holder in self._waiting.items() if self._has_share(holder)]
            if able:
                turn = min(able, key=lambda turn: self._held[self._waiting[turn] or ""])
                del self._waiting[turn]
                turn.callback(None)

    async def _connect(self, hostname: str) -> SMTPClient:
        """A connection to the first host that can be reached and serves us."""
        self._connections += 1
        try:
            client = await self._first_that_serves(hostname)
        except BaseException:
            self._ended()
            raise
        client.on_end.addCallback(lambda _: self._gone(client))
        self.extensions = client.extensions
        return client

    async def _first_that_serves(self, hostname: str) -> SMTPClient:
        *others, last = self._in_order()
        for route in others:
            try:
                return await self._connect_to(route, hostname)
            except ClientError as error:
                log.warn("{host}: {error}; the next one is tried", host=route.host, error=quoted_text(error))
        return await self._connect_to(last, hostname)

    async def _connect_to(self, route: Route, hostname: str) -> SMTPClient:
        factory: Any = Factory.forProtocol(lambda: SMTPClient(self._clock, timeout=self._timeout, lmtp=self._lmtp))
        factory.noisy = False
        try:
            connecting: Deferred[Any] = route.endpoint.connect(factory)
            client: SMTPClient = await connecting.addTimeout(self._timeout, self._clock)
        except BaseException as error:
            if isinstance(error, CancelledError) or not isinstance(error, Exception):
                raise
            route.failed(self._clock.seconds())
            detail = f"can't connect: {Failure(error).getErrorMessage()}"
            raise ClientError(detail, "4.4.1", "The next host can't be reached") from error
        self._open.add(client)
        self._route_of[client] = route
        client.closed.addCallback(lambda _: self._closed(client))
        try:
            await self._begin(client, route, hostname)
        except BaseException as error:
            client.abort()
            if isinstance(error, ClientError):
                route.failed(self._clock.seconds())
            raise
        route.succeeded()
        return client

    async def _begin(self, client: SMTPClient, route: Route, hostname: str) -> None:
        await client.greet(hostname)
        if route.host.start_tls is not None:
            await client.start_tls(route.host.start_tls, hostname)
        if self._sign_in is not None:
            await client.log_in(self._sign_in, str(route.host.where), route.host.port or 0)

    def _closed(self, client: SMTPClient) -> None:
        self._open.discard(client)
        self._route_of.pop(client, None)

    def _gone(self, client: SMTPClient) -> None:
        timer = self._kept.pop(client, None)
        if timer is not None and timer.active():
            timer.cancel()
        self._ended()
        self._no_longer_held(self._holders.pop(client, None))

    def _ended(self) -> None:
        self._connections -= 1
        self._next_turn()

    def release(self, client: SMTPClient) -> None:
        """Give a connection back; a transaction it is in the middle of ends without a message.

        :param client: what :meth:`acquire` returned.
        """
        Deferred.fromCoroutine(self._release(client)).addErrback(
            lambda failure: log.failure("giving back a connection failed", failure)
        )

    async def _release(self, client: SMTPClient) -> None:
        if client.usable and client.in_transaction:
            try:
                reply = await client.ask("RSET")
            except ClientError:
                return
            client.in_transaction = False
            if reply.code >= 300:
                client.abort()
        self._no_longer_held(self._holders.pop(client, None))
        if client.usable:
            self._kept[client] = self._clock.callLater(self._keep, client.quit)
            self._next_turn()

    def close(self) -> None:
        """Close the connections that are not in use."""
        for client in list(self._kept):
            client.quit()

    async def end(self) -> None:
        """Close all connections, and wait until they are closed.

        Messages that wait for a connection get a :exc:`ClientError`.  A connection that is still in use belongs to a
        message that was cut off, so it is aborted.  A later :meth:`acquire` makes a new connection.
        """
        waiting, self._waiting = self._waiting, {}
        for turn in waiting:
            turn.errback(ClientError("the server has stopped", "4.3.2", "The server is shutting down"))
        self.close()
        for client in tuple(self._open):
            if client.usable:
                client.abort(ClientError("the server has stopped"))
            await client.closed


def metrics_of(host: NextHost | None, took: Histogram) -> list[Metric]:
    """What is known of the next host.

    :param host: its connections; ``None`` before the first one.
    :param took: seconds from a message's last octet to its reply.
    """
    routes = () if host is None else host.routes
    failures: dict[tuple[str, ...], float] = {(str(one.host),): one.failures for one in routes}
    connections = 0 if host is None else host.connections
    return [
        Metric.gauge("smtpd_next_host_connections", "Connections to the next host.", connections),
        histogram("smtpd_next_host_seconds", "From a message's last octet to the next host's reply.", took),
        total("smtpd_next_host_failures", "How often a next host did not serve us.", failures, "host"),
    ]
