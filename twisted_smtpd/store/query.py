"""The language in which people look for messages; its words are Mailpit's.

``from:anne subject:"your order" -is:read larger:1M`` finds what is from Anne, has "your order" in its subject, is not
read, and is larger than a mebibyte.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timezone, tzinfo

__all__ = ["FIELDS", "QueryError", "Term", "parse_query"]

#: The fields whose value is a part of a text.
TEXT_FIELDS = ("from", "to", "cc", "bcc", "reply-to", "addressed", "subject", "message-id")
#: All fields of :class:`Term`; ``text`` is a word or a phrase without a field.
FIELDS = (*TEXT_FIELDS, "text", "tag", "mailbox", "is", "has", "before", "after", "larger", "smaller")

MAX_QUERY = 2000
MAX_TERMS = 50

_STATES = ("read", "unread", "tagged", "refused")
_PARTS = {
    "attachment": "attachment",
    "attachments": "attachment",
    "inline": "inline",
    "inlines": "inline",
    "tag": "tags",
    "tags": "tags",
}
_UNITS = {"": 1, "b": 1, "k": 2**10, "kb": 2**10, "m": 2**20, "mb": 2**20, "g": 2**30, "gb": 2**30}
_TERM = re.compile(
    r'(?P<not>[-!]?)(?:(?P<field>[A-Za-z-]+):)?(?:"(?P<quoted>[^"]*)(?:"|$)|(?P<plain>[^\s"]\S*|(?<=:)))'
)
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,6})?)\s*([kmg]?b?)", re.IGNORECASE | re.ASCII)
_DATES = ("%Y-%m-%d", "%Y/%m/%d", "%Y-%m-%d %H:%M", "%Y/%m/%d %H:%M", "%d %b %Y", "%b %d %Y", "%d %B %Y", "%B %d %Y")


class QueryError(ValueError):
    """A query can't be read; the text is one line for the person who wrote it."""


@dataclass(frozen=True, slots=True)
class Term:
    """One thing that a message must be like, or must not.

    :ivar field: one of :data:`FIELDS`.
    :ivar value: what is looked for: in small letters (:meth:`str.casefold`) for texts, tags and mailboxes; octets for
        ``larger`` and ``smaller``; a time with its zone for ``before`` and ``after``; one of ``read``, ``unread``,
        ``tagged`` and ``refused`` for ``is``; one of ``attachment``, ``inline`` and ``tags`` for ``has``.
    :ivar negated: whether it must not be like that.
    """

    field: str
    value: str | int | datetime
    negated: bool = False


def parse_query(text: str, zone: tzinfo = timezone.utc) -> tuple[Term, ...]:
    """Read a query, for :attr:`Matching.terms <twisted_smtpd.store.Matching.terms>`.

    All terms have to be true.  What has no known field is a word that is looked for.

    :param text: the query, at most 2,000 characters and 50 terms.
    :param zone: the time zone of ``before:`` and ``after:`` where they name none.
    :raises QueryError: for a value that its field does not know.
    """
    if len(text) > MAX_QUERY:
        raise QueryError(f"a query has at most {MAX_QUERY} characters, not {len(text)}")
    terms = [term for match in _TERM.finditer(text) if (term := _term(match, zone)) is not None]
    if len(terms) > MAX_TERMS:
        raise QueryError(f"a query has at most {MAX_TERMS} terms, not {len(terms)}")
    return tuple(terms)


def _term(match: re.Match[str], zone: tzinfo) -> Term | None:
    negated, name = bool(match["not"]), (match["field"] or "").lower()
    value = match["plain"] if match["quoted"] is None else match["quoted"]
    if name and (name == "text" or name not in FIELDS):
        # https://example.com is a word.
        name, value = "", f"{match['field']}:{value}"
    value = value.strip()
    if not name:
        return Term("text", value.casefold(), negated) if value else None
    if not value:
        raise QueryError(f"{name}: says nothing to look for; write {name}:VALUE")
    return Term(name, _value(name, value, zone), negated)


def _value(name: str, value: str, zone: tzinfo) -> str | int | datetime:
    if name == "is":
        return _one_of(name, value, {state: state for state in _STATES})
    if name == "has":
        return _one_of(name, value, _PARTS)
    if name in ("larger", "smaller"):
        return _octets(name, value)
    return _time(name, value, zone) if name in ("before", "after") else value.casefold()


def _one_of(name: str, value: str, known: dict[str, str]) -> str:
    found = known.get(value.lower())
    if found is None:
        raise QueryError(f"{name}:{value[:40]} is not known; {name}: takes {', '.join(dict.fromkeys(known.values()))}")
    return found


def _octets(name: str, value: str) -> int:
    match = _SIZE.fullmatch(value)
    if match is None:
        raise QueryError(f"{name}:{value[:40]} is no size; write 500, 10K or 2.5MB")
    return min(int(float(match[1]) * _UNITS[match[2].lower()]), 2**62)


def _time(name: str, value: str, zone: tzinfo) -> datetime:
    try:
        # Python 3.10 does not know Z.
        time = datetime.fromisoformat(re.sub("[zZ]$", "+00:00", value))
    except ValueError:
        time = _written_time(name, value)
    try:
        return (time if time.tzinfo is not None else time.replace(tzinfo=zone)).astimezone(timezone.utc)
    except OverflowError:
        raise QueryError(f"{name}:{value[:40]} is out of range") from None


def _written_time(name: str, value: str) -> datetime:
    for form in _DATES:
        try:
            return datetime.strptime(value.replace(",", ""), form)
        except ValueError:
            pass
    raise QueryError(f'{name}:{value[:40]} is no date; write 2026-01-31 or "2026-01-31 14:30"')
