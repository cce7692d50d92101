"""The metrics, and whether the server is ready, as pages: a small HTTP server, imported only when it is wanted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from twisted_smtpd.logs.escaping import peer_text
from twisted_smtpd.metrics.exposition import exposition
from twisted_smtpd.metrics.figures import Collect, Reading
from twisted_smtpd.service import ListeningService

__all__ = ["MetricsService", "metrics_site", "metrics_url"]

log = Logger()

# Seconds that a connection may last, whatever it does: it has one request, and workers have two seconds to answer.
LIFETIME = 30
# Connections at the same time; more are closed.
MAX_CONNECTIONS = 32


class _Page(Resource):
    def __init__(self, collect: Collect) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._collect: Callable[[], Any] = collect

    def render_GET(self, request: Request) -> int:
        gone = request.notifyFinish()
        reading: Deferred[list[Reading]] = maybeDeferred(self._collect)
        gone.addErrback(lambda _: reading.cancel())
        reading.addCallback(self._answer, request).addErrback(self._failed, request, gone)
        return NOT_DONE_YET

    def _answer(self, readings: list[Reading], request: Request) -> None:
        accepted = request.getHeader(b"accept") or b""
        content_type, page = exposition(readings, accepted.decode("latin-1"))
        request.setHeader(b"content-type", content_type.encode())
        request.write(page)
        request.finish()

    def _failed(self, failure: Failure, request: Request, gone: Deferred[None]) -> None:
        if gone.called:
            return
        log.failure("the metrics can't be read", failure)
        request.setResponseCode(500)
        request.finish()


class _State(Resource):
    """Says whether something holds: ``ok`` with 200, or why not with 503.

    :param why_not: says why not; empty if it holds.
    """

    isLeaf = True

    def __init__(self, why_not: Callable[[], str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._why_not = why_not

    def render_GET(self, request: Request) -> bytes:
        request.setHeader(b"content-type", b"text/plain; charset=utf-8")
        reason = self._why_not()
        if reason:
            request.setResponseCode(503)
        return f"{reason or 'ok'}\n".encode()


class _Channel(HTTPChannel):
    """One connection, which has one request and no body: a body would be kept, on the disk if it is large."""

    # The factory sets the first two.
    site: Any
    callLater: Any
    transport: Any
    _end: IDelayedCall | None = None
    _refused = False

    def connectionMade(self) -> None:
        self.site.connections += 1
        self._end = self.callLater(LIFETIME, self.forceAbortClient)
        super().connectionMade()  # type: ignore[no-untyped-call]

    def checkPersistence(self, request: Any, version: bytes) -> bool:
        """Have the connection closed after the answer."""
        request.responseHeaders.setRawHeaders(b"connection", [b"close"])
        return False

    def allHeadersReceived(self) -> None:
        # None is a body in chunks.
        if self.length == 0:
            super().allHeadersReceived()  # type: ignore[no-untyped-call]
            return
        self._refused = True
        self.transport.write(b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        self.loseConnection()  # type: ignore[no-untyped-call]

    def rawDataReceived(self, data: bytes) -> None:
        if not self._refused:
            super().rawDataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.site.connections -= 1
        if self._end is not None and self._end.active():
            self._end.cancel()
        super().connectionLost(reason)  # type: ignore[no-untyped-call]


class _MetricsSite(Site):
    """The HTTP server.

    :ivar connections: how many it has.
    """

    noisy = False
    protocol: Any = _Channel
    connections = 0

    def buildProtocol(self, addr: Any) -> Any:
        if self.connections >= MAX_CONNECTIONS:
            return None
        return super().buildProtocol(addr)  # type: ignore[no-untyped-call]

    def log(self, request: Any) -> None:
        """No line in the log for each scrape."""


def metrics_site(collect: Collect, not_ready: Callable[[], str], reactor: Any = None) -> Site:
    """The HTTP server: ``/metrics``, ``/healthz`` and ``/readyz``.

    ``/healthz`` answers 200 while the reactor runs, ``/readyz`` while clients are served.

    :param collect: gives the metrics.
    :param not_ready: says why no client is served; empty if one is.
    :param reactor: the provider of time, if not the global reactor.
    """
    root = Resource()
    root.putChild(b"metrics", _Page(collect))
    root.putChild(b"healthz", _State(str))
    root.putChild(b"readyz", _State(not_ready))
    site: Any = _MetricsSite
    return site(root, timeout=LIFETIME, reactor=reactor)  # type: ignore[no-any-return]


class MetricsService(ListeningService):
    """Listens for those who read the metrics; its parameters are those of :class:`ListeningService`."""

    def _opened(self) -> None:
        for _, port in self.ports:
            self.log.info("Metrics are at {place}", place=metrics_url(port.getHost()))


def metrics_url(address: Any) -> str:
    """Where the page is, as a person would write it.

    :param address: what the port says of itself.
    """
    if not hasattr(address, "port"):
        return f"/metrics on {address}"
    return f"http://{peer_text((address.host, address.port))}/metrics"
