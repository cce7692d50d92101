"""The list of messages."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted_smtpd.inbox.page import MAX_NUMBER, Page, Search, argument

__all__ = ["ListPage"]

#: Messages on a page; scrolling asks for the next.
PAGE = 60


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= MAX_NUMBER else None


class ListPage(Page):
    """The list: the newest messages, or those before or after one.

    ``?before=ID`` gives the next ones when a person scrolls, ``?after=ID`` those that came since.
    """

    async def respond(self, request: Any) -> bytes:
        search = Search.of(request)
        before, after = _number(argument(request, "before")), _number(argument(request, "after"))
        matching = replace(search.matching, before=before, after=after or 0)
        found = [] if search.problem else await self.pages.ask("summaries", matching, PAGE + 1, True)
        # All matches are counted for a first page; those who scroll or listen have the number.
        total = 0
        if not search.problem:
            if before is None and after is None and len(found) <= PAGE:
                # These are all: to count them would be to look for them again.
                total = len(found)
            elif search.query:
                total = await self.pages.ask("count", search.matching)
            else:
                total = (await self.pages.ask("counts", search.mailbox)).total
        return await self.pages.render(
            request,
            "list.html",
            search,
            messages=found[:PAGE],
            more=len(found) > PAGE,
            total=total,
            is_first=before is None,
        )
