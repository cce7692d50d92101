"""What all pages share: templates, the sidebar, and answers that come later."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from jinja2 import Environment
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from twisted_smtpd.inbox.content import Contents
from twisted_smtpd.inbox.guard import Guard
from twisted_smtpd.inbox.link_checks import LinkChecker
from twisted_smtpd.inbox.settings import SiteSettings
from twisted_smtpd.inbox.templating import make_environment
from twisted_smtpd.store.interfaces import IMessageStore
from twisted_smtpd.store.messages import Matching, StoredMessage
from twisted_smtpd.store.query import QueryError, parse_query

__all__ = ["MAX_NUMBER", "NotThere", "Page", "Pages", "Search", "argument"]

log = Logger()

#: The largest number that a message can have.
MAX_NUMBER = 2**63 - 1
#: Mailboxes, and tags, that the sidebar has.
MAX_PLACES = 100


class NotThere(Exception):
    """There is no such message, or it is not to be seen."""


def argument(request: Any, name: str) -> str:
    """A parameter of the URL; ``""`` without it."""
    return str(request.args.get(name.encode(), [b""])[0].decode("utf-8", "replace"))


@dataclass(frozen=True)
class Search:
    """What a list shows.

    :ivar mailbox: the mailbox; ``None`` for all.
    :ivar query: what was typed into the search box.
    :ivar matching: the same for the store.
    :ivar problem: why the query can't be understood; ``""`` if it can be.
    """

    mailbox: str | None
    query: str
    matching: Matching
    problem: str = ""

    @classmethod
    def of(cls, request: Any) -> Search:
        """Read it from a request."""
        own, asked = request.access.mailbox, argument(request, "mailbox")
        mailbox: str | None = own if own is not None else (asked if b"mailbox" in request.args else None)
        query, problem = argument(request, "q").strip(), ""
        refused: bool | None = False
        terms: Sequence[Any] = ()
        try:
            terms = parse_query(query)
        except QueryError as error:
            problem = str(error)
        if any(term.field == "is" and term.value == "refused" for term in terms):
            refused = None
        return cls(mailbox, query, Matching(mailbox=mailbox, terms=tuple(terms), refused=refused), problem)

    def url(self, **more: object) -> str:
        """The part of a URL from the question mark on."""
        parts: list[tuple[str, object]] = [] if self.mailbox is None else [("mailbox", self.mailbox)]
        parts += [("q", self.query)] if self.query else []
        parts += more.items()
        return f"?{urlencode(parts)}" if parts else ""


class Pages:
    """What all pages share.

    :param settings: what the site was started with.
    :param store: the messages.
    :param guard: gives the pages their tokens.
    :param contents: what is in messages.
    :param link_checker: asks for links; ``None`` if that is not wanted.
    """

    def __init__(
        self,
        settings: SiteSettings,
        store: IMessageStore,
        guard: Guard,
        contents: Contents,
        link_checker: LinkChecker | None,
    ) -> None:
        self.settings, self.store, self.guard = settings, store, guard
        self.contents, self.link_checker = contents, link_checker
        self.environment: Environment = make_environment()

    async def ask(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Call a method of the store, and wait for its result."""
        return await maybeDeferred(getattr(self.store, method), *arguments, **options)

    async def message(self, request: Any, name: str) -> StoredMessage:
        """The message of a number.

        :raises NotThere: if there is none, or it is not to be seen.
        """
        if not (name.isascii() and name.isdigit() and len(name) < 20 and int(name) <= MAX_NUMBER):
            raise NotThere
        stored: StoredMessage | None = await self.ask("get", int(name))
        own = request.access.mailbox
        if stored is None or (own is not None and own not in stored.message.mailboxes):
            raise NotThere
        return stored

    async def render(self, request: Any, template: str, search: Search, **values: Any) -> bytes:
        """A page.

        :param template: the template's name.
        :param search: what the list shows; the sidebar marks it.
        :param values: the variables of the template.
        """
        own = request.access.mailbox
        mailboxes = await self.ask("mailboxes") if own is None else {}
        shown = _shown_mailboxes(mailboxes, search.mailbox)
        tags = await self.ask("tags", own)
        shared = {
            "base": request.base,
            "title": self.settings.title,
            "version": self.settings.version,
            "smtp_addresses": self.settings.smtp_addresses,
            "csrf": self.guard.page_token(request, request.base),
            "own": own,
            "search": search,
            "counts": await self.ask("counts", own),
            "mailboxes": shown,
            "more_mailboxes": len([name for name in mailboxes if name]) - len(shown),
            "tags": dict(list(tags.items())[:MAX_PLACES]),
            "release": getattr(self.settings.release, "name", ""),
        }
        text: str = self.environment.get_template(template).render({**shared, **values})
        return text.encode("utf-8", "replace")


def _shown_mailboxes(mailboxes: dict[str, Any], current: str | None) -> dict[str, Any]:
    """The mailboxes that the sidebar has: if there are many, those with most unread messages, and the current one."""
    named = {name: counts for name, counts in mailboxes.items() if name}
    if len(named) <= MAX_PLACES:
        return named
    ranked = sorted(named, key=lambda name: (name != current, -named[name].unread, -named[name].total))
    return {name: named[name] for name in sorted(ranked[:MAX_PLACES])}


class Page(Resource, ABC):
    """A page that is ready later."""

    isLeaf = True

    def __init__(self, pages: Pages) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.pages = pages

    def render_GET(self, request: Any) -> int:
        gone = request.notifyFinish()
        request.setHeader(b"content-type", b"text/html; charset=utf-8")
        answering = Deferred.fromCoroutine(self.respond(request))
        gone.addErrback(lambda _: answering.cancel())
        answering.addCallback(self._answer, request, gone).addErrback(self._failed, request, gone)
        return NOT_DONE_YET

    @abstractmethod
    async def respond(self, request: Any) -> bytes:
        """What is answered.

        :raises NotThere: if there is no such message.
        """

    def _answer(self, body: bytes, request: Any, gone: Any) -> None:
        if not gone.called:
            request.setHeader(b"content-length", b"%d" % len(body))
            request.write(body)
            request.finish()

    async def _without(self, request: Any) -> bytes:
        request.setResponseCode(404)
        search = Search(request.access.mailbox, "", Matching())
        return await self.pages.render(request, "missing.html", search)

    def _failed(self, failure: Failure, request: Any, gone: Any) -> Any:
        if gone.called:
            failure.trap(CancelledError)
            return None
        if failure.check(NotThere):
            answering = Deferred.fromCoroutine(self._without(request))
            return answering.addCallback(self._answer, request, gone).addErrback(self._failed, request, gone)
        log.failure("the page {path} can't be shown", failure, path=request.path)
        request.setResponseCode(500)
        request.setHeader(b"content-type", b"text/plain; charset=utf-8")
        return self._answer(b"This went wrong; the server's log says why\n", request, gone)
