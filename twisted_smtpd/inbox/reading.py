"""One message: its page, the frame with its HTML, and the way to the newest one."""

from __future__ import annotations

import json
from collections import OrderedDict
from dataclasses import replace
from typing import Any

from twisted.web.error import UnsupportedMethod
from twisted.web.resource import Resource
from twisted.web.util import redirectTo

from twisted_smtpd.inbox.api.dispatch import API
from twisted_smtpd.inbox.content import Content, headers_of
from twisted_smtpd.inbox.header_checks import check_headers
from twisted_smtpd.inbox.html_support import html_support
from twisted_smtpd.inbox.page import NotThere, Page, Pages, Search, argument
from twisted_smtpd.inbox.sanitising import FRAME_POLICY, FRAME_POLICY_REMOTE, Shown, show_html
from twisted_smtpd.runtime.computing import LARGE, compute, is_large
from twisted_smtpd.store.messages import StoredMessage
from twisted_smtpd.store.summary import Summary

__all__ = ["View"]

#: The parts of a message's page, with what people call them.
TABS = {
    "html": "HTML",
    "text": "Text",
    "headers": "Headers",
    "parts": "Parts",
    "source": "Source",
    "dialog": "Dialog",
    "envelope": "Envelope",
    "links": "Links",
    "checks": "Checks",
}
# Characters of a text, and octets of a source, that are shown; the rest can be downloaded.
MAX_SHOWN = 2**19
# Links that are listed.
MAX_LINKS = 500


class _Shown:
    """Makes HTML safe, in a thread if it is long, and keeps the last few results: a page, then its frame."""

    def __init__(self, limit: int = 4) -> None:
        self._limit = limit
        self._kept: OrderedDict[tuple[int, bool], Shown] = OrderedDict()

    async def of(self, id: int, content: Content, remote: bool) -> Shown:
        key = id, remote
        if key not in self._kept:
            is_large = len(content.html) > LARGE or sum(part.size for part in content.inline) > LARGE
            self._kept[key] = await compute(show_html, content, remote) if is_large else show_html(content, remote)
            while len(self._kept) > self._limit:
                self._kept.popitem(last=False)
        return self._kept[key]


class View(Resource):
    """Everything under ``/view``.

    :param pages: what all pages share.
    :param api: answers what Mailpit has here: the HTML and the text of a message, as they came.
    """

    def __init__(self, pages: Pages, api: API) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._pages, self._api, self._shown = pages, api, _Shown()

    def getChild(self, path: bytes, request: Any) -> Resource:
        name = path.decode("utf-8", "replace")
        rest = [part for part in request.postpath if part]
        as_it_came = None if rest else self._api.endpoint(request)
        if as_it_came is not None:
            return as_it_came
        if rest == [b"frame"]:
            request.postpath = []
            return _Frame(self._pages, self._shown, name)
        if rest == [b"links"]:
            request.postpath = []
            return _Links(self._pages, name)
        if rest:
            name = ""
        request.postpath = []
        return _Newest(self._pages) if name == "latest" else _Message(self._pages, self._shown, name)


class _Newest(Page):
    """Leads to the newest message that matches ``query``, as Mailpit's ``/view/latest`` does."""

    async def respond(self, request: Any) -> bytes:
        request.args.setdefault(b"q", request.args.get(b"query", [b""]))
        search = Search.of(request)
        found = [] if search.problem else await self.pages.ask("summaries", search.matching, 1)
        if not found:
            raise NotThere
        url = f"{request.base}/view/{found[0].id}{search.url()}"
        return redirectTo(url.encode(), request)


class _Frame(Page):
    """The HTML of a message, made safe, for a frame."""

    def __init__(self, pages: Pages, shown: _Shown, name: str) -> None:
        super().__init__(pages)
        self._shown, self._name = shown, name

    async def respond(self, request: Any) -> bytes:
        stored = await self.pages.message(request, self._name)
        remote = argument(request, "remote") == "1"
        shown = await self._shown.of(stored.id, await self.pages.contents.of(stored), remote)
        request.setHeader(b"content-security-policy", (FRAME_POLICY_REMOTE if remote else FRAME_POLICY).encode())
        request.setHeader(b"x-frame-options", b"SAMEORIGIN")
        # A window of ours that a link of the message opens must not hold on to it.
        request.setHeader(b"cross-origin-opener-policy", b"same-origin")
        return (shown.html or f"<!doctype html><title>Message</title><p>{shown.problem}</p>").encode("utf-8", "replace")


class _Message(Page):
    """One message, with the tab that ``?tab=`` names."""

    def __init__(self, pages: Pages, shown: _Shown, name: str) -> None:
        super().__init__(pages)
        self._shown, self._name = shown, name

    async def respond(self, request: Any) -> bytes:
        pages = self.pages
        stored = await pages.message(request, self._name)
        search = Search.of(request)
        content = await pages.contents.of(stored)
        tab = argument(request, "tab")
        if tab not in TABS or (tab == "html" and not content.html):
            tab = "html" if content.html else "text"
        # A link on a page of another site changes nothing here, nor does our page when it brings itself up to date.
        peeks = argument(request, "peek") == "1" or request.getHeader("sec-fetch-site") in ("cross-site", "same-site")
        if not (stored.seen or peeks):
            await pages.ask("mark", [stored.id], True)
            stored = replace(stored, seen=True)
        newer, older = await self._neighbour(search, stored, True), await self._neighbour(search, stored, False)
        return await pages.render(
            request,
            "message.html",
            search,
            stored=stored,
            message=Summary.of(stored),
            content=content,
            newer=newer,
            older=older,
            tab=tab,
            tabs={name: label for name, label in TABS.items() if name != "html" or content.html},
            **await self._values(tab, request, stored, content),
        )

    async def _neighbour(self, search: Search, stored: StoredMessage, is_newer: bool) -> int | None:
        if search.problem:
            return None
        matching = search.matching
        matching = replace(matching, after=stored.id) if is_newer else replace(matching, before=stored.id)
        found = await self.pages.ask("summaries", matching, 1, not is_newer)
        return found[0].id if found else None

    async def _values(self, tab: str, request: Any, stored: StoredMessage, content: Content) -> dict[str, Any]:
        """The variables of a tab."""
        octets = stored.message.content
        if tab == "html":
            remote = argument(request, "remote") == "1"
            return {"shown": await self._shown.of(stored.id, content, remote), "remote": remote}
        if tab == "text":
            return {"text": content.text[:MAX_SHOWN], "is_cut": len(content.text) > MAX_SHOWN}
        if tab == "headers":
            return {"headers": headers_of(octets)}
        if tab == "source":
            source = octets[:MAX_SHOWN].decode("utf-8", "replace").replace("\r\n", "\n")
            return {"source": source, "is_cut": len(octets) > MAX_SHOWN}
        if tab == "dialog":
            transcript = await self.pages.ask("transcript", stored.message.session.id)
            return {"dialog": [] if transcript is None else _dialog(transcript)}
        if tab == "links":
            return {"links": content.links[:MAX_LINKS], "more_links": max(0, len(content.links) - MAX_LINKS)}
        if tab == "checks":
            support = await self._html_support(content) if content.html else None
            is_long = is_large(octets)
            findings = await compute(check_headers, stored, content) if is_long else check_headers(stored, content)
            results = [value for name, value in headers_of(octets) if name.lower() == "authentication-results"]
            return {
                "support": support,
                "findings": findings,
                "may_check_links": self.pages.settings.check_links,
                "authentication": "\n".join(results[:5]),
            }
        return {}

    async def _html_support(self, content: Content) -> Any:
        return await compute(html_support, content) if len(content.html) > LARGE else html_support(content)


class _Links(Page):
    """Asks for the links of a message, for a page of ours: a link elsewhere must not start it."""

    def __init__(self, pages: Pages, name: str) -> None:
        super().__init__(pages)
        self._name = name

    def render_GET(self, request: Any) -> int:
        raise UnsupportedMethod([b"POST"])

    def render_POST(self, request: Any) -> int:
        return super().render_GET(request)

    async def respond(self, request: Any) -> bytes:
        stored = await self.pages.message(request, self._name)
        request.setHeader(b"content-type", b"application/json")
        checker = self.pages.link_checker
        if checker is None or not (request.access.from_page or request.access.by == "token"):
            request.setResponseCode(403)
            return b'{"Error":"Links are checked for people who look at the page, if the server was started so"}'
        content = await self.pages.contents.of(stored)
        found = await checker.check(content.links)
        return json.dumps(
            [{"URL": one.url, "Status": one.status, "Text": one.text, "Good": one.is_good} for one in found]
        ).encode()


def _dialog(transcript: str) -> list[tuple[str, str]]:
    """The lines of a dialog, each with who says it."""
    who = {"C:": "client", "S:": "server"}
    lines = [(who.get(line[:2], "remark"), line) for line in transcript.splitlines()]
    return [(by, line[3:] if by != "remark" else line.removeprefix("-- ")) for by, line in lines]
