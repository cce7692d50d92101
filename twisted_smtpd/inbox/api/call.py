"""One request to the API, and what answers it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timezone, tzinfo
from typing import TYPE_CHECKING, Any, Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from twisted.internet.defer import maybeDeferred

from twisted_smtpd.inbox.access import Access
from twisted_smtpd.store.messages import Matching, StoredMessage
from twisted_smtpd.store.query import QueryError, parse_query

if TYPE_CHECKING:
    from twisted.web.server import Request

    from twisted_smtpd.inbox.api.context import Context

__all__ = ["APIError", "Answer", "Call", "Stream", "as_json", "done", "plain_text"]

#: What stands for the newest message in place of its number.
LATEST = "latest"
# Digits of the largest number that a store can have (SQLite's are of 64 bits).
_MAX_DIGITS = 18


class APIError(Exception):
    """An answer that says what is wrong.

    :param status: the HTTP status.
    :param text: one line.
    :param headers: more headers.
    """

    def __init__(self, status: int, text: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(text)
        self.status, self.text, self.headers = status, " ".join(text.split()), headers or {}


@dataclass(frozen=True)
class Answer:
    """What is sent back.

    :ivar body: the octets.
    :ivar content_type: the value of Content-Type.
    :ivar status: the HTTP status.
    :ivar headers: more headers.
    """

    body: bytes = field(repr=False)
    content_type: str
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


class Stream(Protocol):
    """An answer without an end."""

    @property
    def content_type(self) -> str:
        """The value of Content-Type."""

    @property
    def headers(self) -> Mapping[str, str]:
        """More headers."""

    def begin(self, request: Request) -> None:
        """Send it from now on, until the request ends."""


def as_json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    """An answer in JSON."""
    # A message may hold octets that are no text; Python keeps them as halves of characters, which no parser takes.
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    return Answer(body, "application/json", status, headers or {})


def plain_text(text: str) -> Answer:
    """An answer in plain text."""
    return Answer(text.encode("utf-8", "replace"), "text/plain; charset=utf-8")


def done() -> Answer:
    """What Mailpit says when it has done something."""
    return plain_text("ok")


@dataclass(frozen=True)
class Call:
    """One request, taken apart.

    :ivar context: what all requests share.
    :ivar access: what it may see.
    :ivar path: the variable parts of its path.
    :ivar query: its parameters, each of the type that the route says.
    :ivar body: its body, checked against the route's schema; ``None`` if the route takes none.
    :ivar peer: the client's address.
    :ivar header: gives a header's value, or ``None``.
    """

    context: Context
    access: Access
    path: Mapping[str, str]
    query: Mapping[str, Any]
    body: Any
    peer: Any
    header: Callable[[str], str | None]

    async def ask(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Call a method of the store, and wait for its result."""
        return await maybeDeferred(getattr(self.context.store, method), *arguments, **options)

    @property
    def mailbox(self) -> str | None:
        """The mailbox that is looked at; ``None`` for all.

        :raises APIError: if it is not the one that the token is for.
        """
        asked: str | None = self.query.get("mailbox")
        own = self.access.mailbox
        if own is not None and asked not in (None, own):
            raise APIError(403, "this token is for another mailbox")
        return own if own is not None else asked

    def matching(self, search: str = "", **options: Any) -> Matching:
        """What is looked for, within the mailbox.

        Refused messages are left out unless the search asks for them: Mailpit has none.

        :param search: a search, in Mailpit's grammar.
        :param options: further attributes of :class:`Matching`.
        :raises APIError: if the search can't be understood.
        """
        try:
            terms = parse_query(search, self._zone())
        except QueryError as error:
            raise APIError(400, str(error)) from None
        return Matching(mailbox=self.mailbox, terms=terms, **options)

    def _zone(self) -> tzinfo:
        name: str = self.query.get("tz") or "UTC"
        try:
            return ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            # Where the system has no data about time zones, there is not even UTC.
            if name == "UTC":
                return timezone.utc
            raise APIError(400, f"tz: {name[:60]!r} is no time zone") from None

    async def message(self) -> StoredMessage:
        """The message that the path names.

        :raises APIError: if there is none, or the token is for another mailbox.
        """
        name = self.path["ID"]
        if name == LATEST:
            found = await self.ask("summaries", self.matching(self.query.get("query") or ""), 1)
            number = found[0].id if found else None
        else:
            number = as_number(name)
        stored: StoredMessage | None = None if number is None else await self.ask("get", number)
        if stored is None or not self._may_see(stored):
            raise APIError(404, "there is no such message")
        return stored

    def _may_see(self, stored: StoredMessage) -> bool:
        return self.access.mailbox is None or self.access.mailbox in stored.message.mailboxes

    async def visible(self, names: Sequence[str]) -> list[int]:
        """The numbers of messages that a body names; those that are not there, or not to be seen, are left out."""
        numbers = [number for number in map(as_number, names) if number is not None]
        if self.access.mailbox is None:
            return numbers
        seen = set(await self.ask("ids", replace(self.matching(), refused=None)))
        return [number for number in numbers if number in seen]


def as_number(name: str) -> int | None:
    """The number of a message; ``None`` if it can't be one."""
    return int(name) if name.isascii() and name.isdigit() and len(name) <= _MAX_DIGITS else None
