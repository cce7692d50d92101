"""The next host: its connections, kept and limited in number."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_smtpd.handlers.forwarding.client import ClientError, Credentials, SMTPClient

if TYPE_CHECKING:
    from twisted.internet.interfaces import (
        IDelayedCall,
        IOpenSSLClientConnectionCreator,
        IReactorTime,
        IStreamClientEndpoint,
    )

__all__ = ["NextHost"]

log = Logger()


class NextHost:
    """The host that messages are forwarded to.

    :param endpoint: how to connect.
    :param clock: the provider of time.
    :param lmtp: whether it speaks LMTP.
    :param start_tls: what verifies its certificate after STARTTLS; ``None`` for no STARTTLS.
    :param credentials: the user name and password to authenticate with, if any.
    :param timeout: seconds it may be silent, and that a connection may take to be made or to become free.
    :param max_connections: connections at the same time, the kept ones included.
    :param keep: seconds an unused connection is kept.
    :ivar extensions: what its last greeting offered, or ``None`` before the first one.
    """

    def __init__(
        self,
        endpoint: IStreamClientEndpoint,
        clock: IReactorTime,
        *,
        lmtp: bool,
        start_tls: IOpenSSLClientConnectionCreator | None,
        credentials: Credentials | None,
        timeout: float,
        max_connections: int,
        keep: float,
    ) -> None:
        self._endpoint = endpoint
        self._clock = clock
        self._lmtp = lmtp
        self._start_tls = start_tls
        self._credentials = credentials
        self._timeout = timeout
        self._max_connections = max_connections
        self._keep = keep
        self.extensions: dict[str, str] | None = None
        self._connections = 0
        self._open: set[SMTPClient] = set()
        # The last used is used next, so that connections which are not needed expire.
        self._kept: dict[SMTPClient, IDelayedCall] = {}
        self._waiting: deque[Deferred[None]] = deque()

    async def acquire(self, hostname: str) -> SMTPClient:
        """A connection, ready for a transaction; it is given back with :meth:`release`.

        :param hostname: our name.
        :raises ClientError: if no connection can be made, or becomes free.
        """
        while True:
            if self._kept:
                client, timer = self._kept.popitem()
                timer.cancel()
                client.reused = True
                return client
            if self._connections < self._max_connections:
                return await self._connect(hostname)
            await self._turn()

    async def _turn(self) -> None:
        """Wait until a connection is free, or may be made."""
        turn: Deferred[None] = Deferred()
        self._waiting.append(turn)
        try:
            await turn.addTimeout(self._timeout, self._clock)
        except DeferredTimeout:
            text = "Too many messages for the next host"
            raise ClientError(f"no connection free in {self._timeout:g} s", "4.4.5", text) from None
        finally:
            if turn in self._waiting:
                self._waiting.remove(turn)

    def _next_turn(self) -> None:
        if self._waiting:
            self._waiting.popleft().callback(None)

    async def _connect(self, hostname: str) -> SMTPClient:
        self._connections += 1
        factory: Any = Factory.forProtocol(lambda: SMTPClient(self._clock, timeout=self._timeout, lmtp=self._lmtp))
        factory.noisy = False
        try:
            connecting: Deferred[Any] = self._endpoint.connect(factory)
            client: SMTPClient = await connecting.addTimeout(self._timeout, self._clock)
        except BaseException as error:
            self._ended()
            if isinstance(error, CancelledError) or not isinstance(error, Exception):
                raise
            detail = f"can't connect: {Failure(error).getErrorMessage()}"
            raise ClientError(detail, "4.4.1", "The next host can't be reached") from error
        self._open.add(client)
        client.on_end.addCallback(lambda _: self._gone(client))
        client.closed.addCallback(lambda _: self._open.discard(client))
        try:
            await client.greet(hostname)
            if self._start_tls is not None:
                await client.start_tls(self._start_tls, hostname)
            if self._credentials is not None:
                await client.log_in(self._credentials)
        except BaseException:
            client.abort()
            raise
        self.extensions = client.extensions
        return client

    def _gone(self, client: SMTPClient) -> None:
        timer = self._kept.pop(client, None)
        if timer is not None and timer.active():
            timer.cancel()
        self._ended()

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
        waiting, self._waiting = self._waiting, deque()
        for turn in waiting:
            turn.errback(ClientError("the server has stopped", "4.3.2", "The server is shutting down"))
        self.close()
        for client in tuple(self._open):
            if client.usable:
                client.abort(ClientError("the server has stopped"))
            await client.closed
