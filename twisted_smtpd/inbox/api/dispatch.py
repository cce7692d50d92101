"""From an HTTP request to its route, and from an answer to HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import RESPONSES
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from twisted_smtpd.inbox.access import Access
from twisted_smtpd.inbox.api.call import Answer, APIError, Call, Stream, as_json
from twisted_smtpd.inbox.api.checking import BadBody, read_body
from twisted_smtpd.inbox.api.context import Context
from twisted_smtpd.inbox.api.openapi import encoded
from twisted_smtpd.inbox.api.route import Route
from twisted_smtpd.inbox.api.sending import CHUNK, Budget, Sending
from twisted_smtpd.inbox.api.table import ROUTES
from twisted_smtpd.inbox.content import Contents
from twisted_smtpd.inbox.link_checks import LinkChecker
from twisted_smtpd.inbox.settings import SiteSettings
from twisted_smtpd.store.interfaces import IMessageStore

__all__ = ["API", "MAX_BODY"]

log = Logger()

#: Octets of a body, but for uploads.
MAX_BODY = 2**20
# Octets of a query, and its parameters.  Twisted closes the connection for a line of more than 16 KiB.
_MAX_QUERY, _MAX_FIELDS = 16_000, 50
_METHODS = {"HEAD": "GET"}
# For a browser that shows an answer; the site sets all other headers that keep it from harm.
_POLICY = "default-src 'none'; frame-ancestors 'none'; sandbox"


class API:
    """The API of one site.

    :param settings: what the site was started with.
    :param store: the messages.
    :param clock: the provider of time.
    :param contents: what is in messages.
    :param link_checker: asks for links; ``None`` where that was not allowed.
    """

    #: The first parts of the paths that are the API's alone.
    NAMES = (b"api", b"livez", b"readyz")

    def __init__(
        self,
        settings: SiteSettings,
        store: IMessageStore,
        clock: Any,
        contents: Contents,
        link_checker: LinkChecker | None,
    ) -> None:
        document = encoded(ROUTES, settings.version)
        self._context = Context(settings, store, clock, contents, link_checker, document)
        self.resource: Resource = _Root(self)

    def endpoint(self, request: Request) -> Resource | None:
        """What answers a request; ``None`` if no route is for its path.

        :param request: the request; the site has set its ``base``: the path below which all is.
        """
        parts = request.path.split(b"/")[1:]
        below = len([part for part in getattr(request, "base", "").split("/") if part])
        path = "/" + b"/".join(parts[below:]).decode("ascii", "replace")
        routes = _routes(path)
        return _Endpoint(self._context, routes) if routes else None

    def close(self) -> None:
        """End the requests that wait or listen."""
        self._context.close()


def _routes(path: str) -> Mapping[str, tuple[Route, Mapping[str, str]]]:
    """The routes of a path, by method, each with the variable parts of the path."""
    found: dict[str, tuple[Route, Mapping[str, str]]] = {}
    for route in ROUTES:
        parts = route.match(path)
        if parts is not None:
            found.setdefault(route.method, (route, parts))
    return found


class _Root(Resource):
    """All paths of the API."""

    isLeaf = True

    def __init__(self, api: API) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._api = api

    def render(self, request: Request) -> int:
        endpoint = self._api.endpoint(request)
        if endpoint is None:
            _send(request, as_json({"Error": "there is no such path in the API"}, 404))
        else:
            endpoint.render(request)
        return NOT_DONE_YET


class _Endpoint(Resource):
    """The routes of one path."""

    isLeaf = True

    def __init__(self, context: Context, routes: Mapping[str, tuple[Route, Mapping[str, str]]]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._context, self._routes = context, routes

    def render(self, request: Request) -> int:
        method = request.method.decode("ascii", "replace")
        found = self._routes.get(_METHODS.get(method, method))
        if found is None:
            allowed = ", ".join(sorted({*self._routes, *(("HEAD",) if "GET" in self._routes else ())}))
            _send(request, as_json({"Error": f"only {allowed} here"}, 405, {"Allow": allowed}))
            return NOT_DONE_YET
        answering = Deferred.fromCoroutine(self._answer(request, *found))
        gone = request.notifyFinish()
        gone.addErrback(lambda _: answering.cancel())
        answering.addCallback(self._answered, request, gone, self._context.budget).addErrback(
            self._failed, request, gone
        )
        return NOT_DONE_YET

    async def _answer(self, request: Request, route: Route, parts: Mapping[str, str]) -> Answer | Stream:
        access = _access(request, route)
        if route.guarded:
            _check_asker(request, access, self._context.settings.trust_programs)
        if route.server and access.mailbox is not None:
            raise APIError(403, "this token is for one mailbox only, and this concerns the whole server")
        call = Call(
            self._context,
            access,
            parts,
            _query(request, route),
            self._body(request, route),
            _peer(request),
            request.getHeader,
        )
        return await route.answer(call)

    def _body(self, request: Request, route: Route) -> Any:
        if route.body is None:
            return None
        limit = self._context.settings.max_upload if route.upload else MAX_BODY
        content = request.content
        octets = content.read(limit + 1) if content is not None else b""
        if len(octets) > limit:
            raise APIError(413, f"the body has more than {limit:,} octets")
        try:
            return read_body(octets, route.body, form=route.form)
        except BadBody as error:
            raise APIError(400, str(error)) from None

    @staticmethod
    def _answered(answer: Answer | Stream, request: Request, gone: Deferred[None], budget: Budget) -> None:
        if gone.called:
            return
        if isinstance(answer, Answer):
            if len(answer.body) > CHUNK and not budget.allows(len(answer.body)):
                raise APIError(503, "too many large answers are being sent already", {"Retry-After": "5"})
            _send(request, answer, budget)
            return
        _set_headers(request, 200, answer.content_type, answer.headers)
        if request.method == b"HEAD":
            request.finish()
        else:
            answer.begin(request)

    @staticmethod
    def _failed(failure: Failure, request: Request, gone: Deferred[None]) -> None:
        error = failure.value
        if gone.called and failure.check(CancelledError, APIError):
            # What it wanted was cancelled.
            return
        if not isinstance(error, APIError):
            log.failure("{path} could not be answered", failure, path=request.path.decode("ascii", "replace"))
            error = APIError(500, "something went wrong here; the log says what")
        if gone.called:
            return
        _send(request, as_json({"Error": error.text}, error.status, error.headers))


def _access(request: Request, route: Route) -> Access:
    access: Access | None = getattr(request, "access", None)
    if access is None:
        if not route.open:
            # The site has not looked at this request; better no answer than one to anybody.
            raise APIError(401, "a password or a token is needed")
        return Access()
    return access


def _check_asker(request: Request, access: Access, trusts_programs: bool) -> None:
    """Refuse what neither shows a token nor comes from a page of ours; a program may show a password as well.

    A page of another program on this machine could ask without a token, too, and a browser sends passwords by itself.
    """
    if access.by == "token" or access.from_page:
        return
    if _is_browser(request):
        raise APIError(403, "in a browser, only the page itself may do this")
    if access.by == "loopback" and not trusts_programs:
        raise APIError(403, "this takes a token: start the server with --http-token or with --http-trust-programs")


def _is_browser(request: Request) -> bool:
    """Whether a browser asks; programs send none of this."""
    named = any(request.requestHeaders.hasHeader(name) for name in ("origin", "sec-fetch-site"))
    return named or "mozilla" in (request.getHeader("user-agent") or "").lower()


def _query(request: Request, route: Route) -> dict[str, Any]:
    text = request.uri.partition(b"?")[2].decode("ascii", "replace")
    if len(text) > _MAX_QUERY:
        raise APIError(400, f"the query has more than {_MAX_QUERY:,} characters")
    try:
        given = parse_qs(text, keep_blank_values=True, max_num_fields=_MAX_FIELDS)
    except ValueError as error:
        raise APIError(400, f"the query can't be read: {error}") from None
    return {one.name: one.read(given.get(one.name, [None])[-1]) for one in route.query}


def _peer(request: Request) -> Any:
    address = request.getClientAddress()
    host, port = getattr(address, "host", None), getattr(address, "port", None)
    return (host, port) if isinstance(host, str) and isinstance(port, int) else ""


def _set_headers(request: Request, status: int, content_type: str, headers: Mapping[str, str]) -> None:
    request.setResponseCode(status, RESPONSES.get(status))
    request.setHeader("Content-Type", content_type)
    request.setHeader("Content-Security-Policy", _POLICY)
    for name, value in headers.items():
        request.setHeader(name, value)


def _send(request: Request, answer: Answer, budget: Budget | None = None) -> None:
    _set_headers(request, answer.status, answer.content_type, answer.headers)
    request.setHeader("Content-Length", str(len(answer.body)))
    if request.method == b"HEAD":
        request.finish()
    elif len(answer.body) <= CHUNK or budget is None:
        request.write(answer.body)
        request.finish()
    else:
        Sending(request, answer.body, budget).start()
