"""The metrics as a page: a small HTTP server, imported only when it is wanted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from twisted_smtpd.metrics.figures import Collect, Reading, exposition
from twisted_smtpd.service import ListeningService

__all__ = ["MetricsService", "metrics_site", "metrics_url"]

log = Logger()

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"

# A scraper that went silent must not hold its connection for ever.
IDLE = 60


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
        request.setHeader(b"content-type", CONTENT_TYPE)
        request.write(exposition(readings).encode())
        request.finish()

    def _failed(self, failure: Failure, request: Request, gone: Deferred[None]) -> None:
        if gone.called:
            return
        log.failure("the metrics can't be read", failure)
        request.setResponseCode(500)
        request.finish()


class _MetricsSite(Site):
    noisy = False

    def log(self, request: Any) -> None:
        """No line in the log for each scrape."""


def metrics_site(collect: Collect, reactor: Any = None) -> Site:
    """The HTTP server: ``/metrics`` and nothing else.

    :param collect: what it asks each time.
    :param reactor: the provider of time, if not the global reactor.
    """
    root = Resource()
    root.putChild(b"metrics", _Page(collect))
    site: Any = _MetricsSite
    return site(root, timeout=IDLE, reactor=reactor)  # type: ignore[no-any-return]


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
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"http://{host}:{address.port}/metrics"
