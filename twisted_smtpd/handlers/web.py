"""What handlers that ask a web service share: URLs that may be logged, and responses that are read past."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import Agent, HTTPConnectionPool
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer

__all__ = ["Connections", "ReadPast", "checked_url", "kind_of"]

# Octets of a response's body that are skipped; after more, the connection is closed.
MAX_RESPONSE = 65536
# Seconds a connection is kept; web servers close theirs after 5 and more.
KEEP = 4.0


class ReadPast(Protocol):
    """Reads a response's body to its end, so that the connection can be used again.

    :ivar done: fires when that is so; cancelling it closes the connection.
    """

    def __init__(self) -> None:
        self._octets = 0
        self.done: Deferred[None] = Deferred(lambda _: self._stop())

    def _stop(self) -> None:
        transport: Any = self.transport
        abort = getattr(transport, "abortConnection", None) or transport.loseConnection
        abort()

    def dataReceived(self, data: bytes) -> None:
        self._octets += len(data)
        if self._octets > MAX_RESPONSE:
            self._stop()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.done.called:
            self.done.callback(None)


class Connections:
    """The connections to a web service, which are kept for the next request.

    :param most: how many are kept.
    :param timeout: seconds that connecting may take.
    :param agent: makes the requests, if not one of ours.
    :param reactor: what connects, if not the global reactor.
    """

    def __init__(self, most: int, timeout: float, agent: IAgent | None = None, reactor: Any = None) -> None:
        self._most = most
        self._timeout = timeout
        self._agent = agent
        self._reactor = reactor
        self._pool: HTTPConnectionPool | None = None

    @property
    def clock(self) -> Any:
        """The reactor."""
        if self._reactor is None:
            from twisted.internet import reactor

            self._reactor = reactor
        return self._reactor

    def _own_agent(self) -> IAgent:
        if self._pool is None:
            self._pool = HTTPConnectionPool(self.clock)
            self._pool.maxPersistentPerHost = self._most
            self._pool.cachedConnectionTimeout = KEEP  # type: ignore[assignment]
        return Agent(self.clock, connectTimeout=self._timeout, pool=self._pool)

    async def request(
        self, method: bytes, url: bytes, headers: Mapping[str, str], body: IBodyProducer | None = None
    ) -> tuple[int, Deferred[None]]:
        """Make a request.

        :returns: the status, and what fires when the rest of the response has been read past, or takes too long.
        """
        agent = self._agent or self._own_agent()
        fields = Headers({name: [value] for name, value in headers.items()})
        response = await agent.request(method, url, fields, body)
        rest = ReadPast()
        response.deliverBody(rest)
        return response.code, rest.done.addTimeout(KEEP, self.clock).addErrback(lambda failure: None)

    async def close(self) -> None:
        """Close those that are kept."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.closeCachedConnections()


def checked_url(url: str) -> tuple[bytes, str]:
    """A URL as bytes, and the part of it that may be logged.

    :raises ValueError: it is none for a web service.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    else:
        if parts.scheme in ("http", "https") and host and parts.username is None and url.isascii():
            where = f"{parts.scheme}://{host}{'' if port is None else f':{port}'}"
            return url.partition("#")[0].encode(), where
    # Not repeated: it may have a password or a token in it.
    raise ValueError("it takes a URL, http://… or https://…, in ASCII and without user and password")


def kind_of(error: Exception) -> str:
    """The types of an error and of its reasons: their texts may have the URL in them."""
    reasons = getattr(error, "reasons", None) or []
    return " ".join((type(error).__name__, *(type(reason.value).__name__ for reason in reasons)))
