"""Whether a message is one of those that are looked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from twisted_smtpd.store.messages import Matching, StoredMessage
from twisted_smtpd.store.searchable import Searchable

if TYPE_CHECKING:
    from twisted_smtpd.store.query import Term
    from twisted_smtpd.store.summary import Summary

__all__ = ["COLUMNS", "columns_of", "matches", "wanted_texts"]

#: Where a search for each field looks.
COLUMNS: dict[str, tuple[str, ...]] = {
    "from": ("sender",),
    "to": ("to",),
    "cc": ("cc",),
    "bcc": ("bcc",),
    "reply-to": ("reply_to",),
    "addressed": ("sender", "to", "cc", "bcc", "reply_to"),
    "subject": ("subject",),
    "message-id": ("message_id",),
    "text": Searchable._fields,
}
# Words with fewer letters are not looked for in bodies: most have them, and an index has pieces of three.
_SHORTEST = 3


def columns_of(field: str, text: str) -> tuple[str, ...]:
    """Where a search looks.

    :param field: a field of :class:`~twisted_smtpd.store.Term`.
    :param text: what is looked for.
    """
    columns = COLUMNS[field]
    return columns[:-1] if field == "text" and len(text) < _SHORTEST else columns


def wanted_texts(matching: Matching) -> list[tuple[str, tuple[str, ...]]]:
    """The texts that a message must have, apart from terms; each with the columns in one of which it has to be."""
    wanted = [
        (matching.sender, COLUMNS["from"]),
        (matching.to, ("to", "cc", "bcc")),
        (matching.subject, COLUMNS["subject"]),
        *((word, columns_of("text", word)) for word in matching.text.casefold().split()),
    ]
    return [(text.casefold(), columns) for text, columns in wanted if text]


def matches(stored: StoredMessage, matching: Matching, look: Callable[[], tuple[Summary, Searchable]]) -> bool:
    """Whether a message is one of those that are looked for.

    :param stored: the message.
    :param matching: what is looked for.
    :param look: gives the message's summary and texts; called only if they are needed.
    """
    message = stored.message
    return (
        stored.id > matching.after
        and (matching.before is None or stored.id < matching.before)
        and (matching.mailbox is None or matching.mailbox in message.mailboxes)
        and matching.wanted_refused in (None, message.refusal is not None)
        and matching.seen in (None, stored.seen)
        and (matching.tag is None or matching.tag in stored.tags)
        and matching.session in (None, message.session.id)
        and _has_texts(matching, look)
        and all(_is_so(term, *look()) != term.negated for term in matching.terms)
    )


def _has_texts(matching: Matching, look: Callable[[], tuple[Summary, Searchable]]) -> bool:
    return all(_in_columns(text, columns, look()[1]) for text, columns in wanted_texts(matching))


def _in_columns(text: str, columns: Iterable[str], searchable: Searchable) -> bool:
    return any(text in getattr(searchable, column) for column in columns)


def _is_so(term: Term, summary: Summary, searchable: Searchable) -> bool:
    value: Any = term.value
    if term.field in COLUMNS:
        return _in_columns(value, columns_of(term.field, value), searchable)
    if term.field in ("tag", "mailbox"):
        return value in map(str.casefold, summary.tags if term.field == "tag" else summary.mailboxes)
    return _FACTS[term.field](summary, value)


def _is(summary: Summary, state: str) -> bool:
    return {
        "read": summary.seen,
        "unread": not summary.seen,
        "tagged": bool(summary.tags),
        "refused": summary.refusal is not None,
    }[state]


def _has(summary: Summary, part: str) -> bool:
    return bool({"attachment": summary.attachments, "inline": summary.inline, "tags": summary.tags}[part])


def _before(summary: Summary, time: datetime) -> bool:
    return summary.received < time


_FACTS: dict[str, Callable[[Summary, Any], bool]] = {
    "is": _is,
    "has": _has,
    "before": _before,
    "after": lambda summary, time: not _before(summary, time),
    "larger": lambda summary, octets: bool(summary.size > octets),
    "smaller": lambda summary, octets: bool(summary.size < octets),
}
