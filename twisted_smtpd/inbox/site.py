"""The site of an inbox: everything that is served over HTTP goes through here."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.resource import Resource, getChildForRequest
from twisted.web.server import NOT_DONE_YET, Request, Site

from twisted_smtpd.inbox.api.dispatch import API
from twisted_smtpd.inbox.content import Contents
from twisted_smtpd.inbox.guard import HEADERS, Guard
from twisted_smtpd.inbox.link_checks import LinkChecker
from twisted_smtpd.inbox.listing import ListPage
from twisted_smtpd.inbox.page import Pages
from twisted_smtpd.inbox.reading import View
from twisted_smtpd.inbox.settings import SiteSettings
from twisted_smtpd.inbox.static import StaticFiles
from twisted_smtpd.store.interfaces import IMessageStore

__all__ = ["InboxResource", "answer_text", "inbox_resource", "make_site"]

log = Logger()

# Connections at the same time; more are closed.  A browser has up to six.
MAX_CONNECTIONS = 256
# Seconds for which a connection may wait for a request, and seconds for a request with its answer, whatever happens.
IDLE = 60
LIFETIME = 600
# What is answered without a password: whether the server lives.
_OPEN = frozenset({b"livez", b"readyz"})


def set_headers(request: Any) -> None:
    """Set the headers that each response has."""
    for name, value in HEADERS:
        request.setHeader(name, value)


def answer_text(request: Any, status: int, text: str) -> None:
    """Answer with a line of text; in JSON for programs that use the API."""
    request.setResponseCode(status)
    if request.postpath[:1] == [b"api"]:
        request.setHeader(b"content-type", b"application/json")
        request.write(json.dumps({"Error": text}).encode("ascii"))
    else:
        request.setHeader(b"content-type", b"text/plain; charset=utf-8")
        request.write(f"{text}\n".encode("utf-8", "replace"))
    request.finish()


class _NotFound(Resource):
    isLeaf = True

    def render(self, request: Any) -> int:
        set_headers(request)
        answer_text(request, 404, "There is no such page")
        return NOT_DONE_YET


class _Tree(Resource):
    def getChild(self, path: bytes, request: Any) -> Resource:
        return _NotFound()  # type: ignore[no-untyped-call]


class InboxResource(Resource):
    """Everything that is served, behind the guard.

    It can be put anywhere in the tree of another Twisted program.

    :param settings: what it is started with.
    :param store: the messages.
    :param reactor: the provider of time.
    :ivar guard: says what a request is allowed to do.
    :ivar api: the REST interface.
    :ivar pages: what all pages share.
    :ivar tree: what is behind the guard; more can be put in with ``putChild``.
    """

    isLeaf = True

    def __init__(self, settings: SiteSettings, store: IMessageStore, reactor: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.settings, self.store = settings, store
        self.guard = Guard(settings, reactor)
        self.tree = _Tree()  # type: ignore[no-untyped-call]
        self.tree.putChild(b"static", StaticFiles())
        contents = Contents()
        link_checker = LinkChecker(reactor) if settings.check_links else None
        self.api = API(settings, store, reactor, contents, link_checker)
        for name in self.api.NAMES:
            self.tree.putChild(name, self.api.resource)
        self.pages = Pages(settings, store, self.guard, contents, link_checker)
        self.tree.putChild(b"", ListPage(self.pages))
        self.tree.putChild(b"view", View(self.pages, self.api))

    def render(self, request: Any) -> int:
        set_headers(request)
        gone = request.notifyFinish()
        serving = Deferred.fromCoroutine(self._serve(request))
        gone.addErrback(lambda _: serving.cancel())
        serving.addErrback(self._failed, request, gone)
        return NOT_DONE_YET

    async def _serve(self, request: Any) -> None:
        refusal = self.guard.refusal(request)
        if refusal is not None:
            answer_text(request, 403, refusal)
            return
        first = request.postpath[0] if request.postpath else b""
        access = None
        if first not in _OPEN:
            access = await self.guard.access(request)
            if access is None:
                request.responseHeaders.setRawHeaders(b"www-authenticate", self.guard.challenges())
                answer_text(request, 401, "A password or a token is needed")
                return
        request.access = access
        # Where the tree is in the site of another program, for links.
        request.base = "".join(f"/{part.decode('utf-8', 'replace')}" for part in request.prepath if part)
        request.render(getChildForRequest(self.tree, request))

    def _failed(self, failure: Failure, request: Any, gone: Any) -> None:
        if gone.called:
            return
        log.failure("a request to {path} failed", failure, path=request.path)
        if request.startedWriting:
            request.loseConnection()
        else:
            answer_text(request, 500, "This went wrong; the server's log says why")


def inbox_resource(settings: SiteSettings, store: IMessageStore, reactor: Any = None) -> InboxResource:
    """The inbox as a resource of twisted.web, for other Twisted programs.

    :param settings: what it is started with.
    :param store: the messages.
    :param reactor: the provider of time, if not the global reactor.
    """
    if reactor is None:
        from twisted.internet import reactor as global_reactor

        reactor = global_reactor
    return InboxResource(settings, store, reactor)


class _Request(Request):
    """A request whose body is left to what answers it, and never larger than allowed."""

    channel: Any
    _received = 0
    _is_complete = True

    def handleContentChunk(self, data: bytes) -> None:
        self._received += len(data)
        if self._received > self.channel.site.max_upload:
            self.channel.refuse(413)
        else:
            super().handleContentChunk(data)  # type: ignore[no-untyped-call]

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        # Twisted would take a form apart, with all that it holds in memory.
        kinds = self.requestHeaders.getRawHeaders(b"content-type")
        self.requestHeaders.removeHeader(b"content-type")
        self._is_complete = False
        super().requestReceived(command, path, version)  # type: ignore[no-untyped-call]
        if kinds is not None:
            self.requestHeaders.setRawHeaders(b"content-type", kinds)
        self._is_complete = True
        self.process()

    def process(self) -> None:
        if self._is_complete:
            super().process()  # type: ignore[no-untyped-call]


_REFUSALS = {
    401: (b"401 Unauthorized", "A password or a token is needed"),
    413: (b"413 Content Too Large", "The body is too large"),
}


class _Channel(HTTPChannel):
    """One connection, with bounds for its requests."""

    # The factory sets these.
    site: Any
    callLater: Any
    transport: Any
    _end: IDelayedCall | None = None
    _refused = False

    def connectionMade(self) -> None:
        self.site.connections += 1
        super().connectionMade()  # type: ignore[no-untyped-call]

    def lineReceived(self, line: bytes) -> None:
        if self._end is None:
            self._end = self.callLater(LIFETIME, self.forceAbortClient)
        super().lineReceived(line)  # type: ignore[no-untyped-call]

    def requestDone(self, request: Any) -> None:
        self.stay()
        super().requestDone(request)  # type: ignore[no-untyped-call]

    def stay(self) -> None:
        """Don't end the connection after some time: its answer has no end."""
        if self._end is not None and self._end.active():
            self._end.cancel()
        self._end = None

    def allHeadersReceived(self) -> None:
        if self.length is not None and self.length > self.site.max_upload:
            self.refuse(413)
        elif self.length != 0 and not self.site.takes_body(self.requests[-1]):
            self.refuse(401)
        else:
            super().allHeadersReceived()  # type: ignore[no-untyped-call]

    def refuse(self, status: int) -> None:
        """Answer and close, without taking the body."""
        if self._refused:
            return
        self._refused = True
        text, why = _REFUSALS[status]
        # Pages send no large bodies, so this is for programs that use the API.
        body = json.dumps({"Error": why}).encode("ascii")
        headers = [b"%b: %b" % pair for pair in HEADERS]
        headers += [b"content-type: application/json", b"content-length: %d" % len(body)]
        if status == 401:
            headers += [b"www-authenticate: " + value for value in self.site.inbox.guard.challenges()]
        self.transport.write(b"\r\n".join((b"HTTP/1.1 " + text, b"connection: close", *headers, b"", body)))
        self.loseConnection()  # type: ignore[no-untyped-call]

    def rawDataReceived(self, data: bytes) -> None:
        if not self._refused:
            super().rawDataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.site.connections -= 1
        self.stay()
        super().connectionLost(reason)  # type: ignore[no-untyped-call]


class _InboxSite(Site):
    """The HTTP server.

    :ivar inbox: the resource with everything.
    :ivar connections: how many it has.
    :ivar max_upload: how many octets the body of a request may have.
    """

    noisy = False
    protocol: Any = _Channel
    inbox: Any = None
    connections = 0
    max_upload = 0

    def buildProtocol(self, addr: Any) -> Any:
        if self.connections >= MAX_CONNECTIONS:
            return None
        return super().buildProtocol(addr)  # type: ignore[no-untyped-call]

    def takes_body(self, request: Any) -> Any:
        """Whether the body of a request is read before its password is looked at."""
        return self.inbox.settings.is_open or request.requestHeaders.hasHeader(b"authorization")

    def log(self, request: Any) -> None:
        """No line in the log for each request."""


def make_site(settings: SiteSettings, store: IMessageStore, reactor: Any = None) -> Site:
    """The HTTP server of an inbox.

    :param settings: what it is started with.
    :param store: the messages.
    :param reactor: the provider of time, if not the global reactor.
    """
    inbox = inbox_resource(settings, store, reactor)
    root: Resource = inbox
    for part in reversed([part for part in settings.base.split("/") if part]):
        below, root = root, _Tree()  # type: ignore[no-untyped-call]
        root.putChild(part.encode(), below)
    site_class: Any = _InboxSite
    site = site_class(root, timeout=IDLE, reactor=reactor)
    site.requestFactory, site.displayTracebacks = _Request, False
    site.inbox, site.max_upload = inbox, settings.max_upload
    return site  # type: ignore[no-any-return]
