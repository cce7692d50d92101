"""From what is looked for to SQL."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from twisted_smtpd.store.matching import COLUMNS, columns_of, wanted_texts
from twisted_smtpd.store.messages import Matching
from twisted_smtpd.store.query import Term
from twisted_smtpd.store.schema import COLUMN_NAMES
from twisted_smtpd.store.searchable import Searchable

__all__ = ["MAX_ID", "Statement", "statement", "text_value"]

#: The largest number that SQLite has.
MAX_ID = 2**63 - 1

# Pieces of a text that the index is asked for; all of the text is compared with what it finds.
MAX_PIECES = 16
_PIECE = 3
# Characters of a text that GLOB compares: SQLite takes patterns of 50,000 octets.
MAX_PATTERN = 1000
_SPECIAL = re.compile(r"[*?[]")
# To see that a text is empty is cheaper than to look for something in it.
_OFTEN_EMPTY = frozenset({"cc", "bcc", "reply_to"})
_BODY = "(SELECT body FROM contents c WHERE c.id = m.id)"

Conditions = Sequence[tuple[str, tuple[str, ...]]]


class Statement:
    """A part of a SELECT: from FROM on, but for ORDER and LIMIT.

    :ivar order: the column by which the newest come first.
    :ivar asks_index: whether the index of words is asked.
    """

    def __init__(self) -> None:
        self.tables = "messages m"
        self.order = "m.id"
        self.asks_index = False
        self._conditions: list[str] = ["m.binned IS NULL"]
        self._values: list[Any] = []
        self._leading: list[Any] = []
        self._comparisons: list[str] = []
        self._compared: list[Any] = []

    def compare(self, condition: str, values: Sequence[Any]) -> None:
        """Add a condition about texts."""
        self._comparisons.append(condition)
        self._compared += values

    def where(self, condition: str, *values: Any) -> None:
        """Add a condition."""
        self._conditions.append(condition)
        self._values += values

    def lead(self, table: str, column: str, condition: str, value: Any) -> None:
        """Have a table lead the search: it gives the numbers of messages in order, so that a limit ends it early."""
        self.tables = f"{table} CROSS JOIN messages m ON m.id = {column}"
        self.order = column
        self._conditions.insert(0, condition)
        self._leading = [value]

    @property
    def leads(self) -> bool:
        """Whether a table leads already."""
        return bool(self._leading)

    @property
    def sql(self) -> str:
        """The text."""
        if not self._comparisons:
            return self.index_sql
        return f"FROM {self.tables} WHERE {' AND '.join((*self._conditions, *self._comparisons))}"

    @property
    def values(self) -> list[Any]:
        """The values of its parameters."""
        return [*self.index_values, *self._compared]

    @property
    def index_sql(self) -> str:
        """A text that takes the word of the index: it may find some more."""
        return f"FROM {self.tables} WHERE {' AND '.join(self._conditions)}"

    @property
    def index_values(self) -> list[Any]:
        """The values of its parameters."""
        return [*self._leading, *self._values]

    @property
    def is_exact(self) -> bool:
        """Whether the index knows all that is asked for."""
        return not self._comparisons


def statement(matching: Matching) -> Statement:
    """The SELECT that finds what is looked for.

    :param matching: what is looked for.
    """
    made = Statement()
    _texts(made, [*wanted_texts(matching), *_text_terms(matching.terms, negated=False)])
    for text, columns in _text_terms(matching.terms, negated=True):
        condition, values = _comparison(text, columns)
        found = f"SELECT m.id FROM messages m WHERE {condition}"
        if pieces := _pieces(text):
            made.asks_index = True
            join = "words w CROSS JOIN messages m ON m.id = w.rowid"
            found = f"SELECT m.id FROM {join} WHERE w.words MATCH ? AND {condition}"
            values.insert(0, pieces)
        made.where(f"m.id NOT IN ({found})", *values)
    if matching.mailbox is not None:
        _mailbox(made, text_value(matching.mailbox))
    _facts(made, matching)
    for term in matching.terms:
        if term.field not in COLUMNS:
            condition_of, value = _TERMS[term.field](term.value)
            made.where(f"NOT ({condition_of})" if term.negated else condition_of, *value)
    return made


def _mailbox(made: Statement, mailbox: str) -> None:
    if made.leads:
        made.where("EXISTS (SELECT 1 FROM mailed b WHERE b.mailbox = ? AND b.id = m.id)", mailbox)
    else:
        made.lead("mailed b", "b.id", "b.mailbox = ?", mailbox)


def _facts(made: Statement, matching: Matching) -> None:
    if matching.after > 0:
        made.where(f"{made.order} > ?", min(matching.after, MAX_ID))
    if matching.before is not None:
        made.where(f"{made.order} < ?", min(matching.before, MAX_ID))
    refused = matching.wanted_refused
    if refused is not None:
        made.where("m.refused" if refused else "NOT m.refused")
    if matching.seen is not None:
        made.where("m.seen" if matching.seen else "NOT m.seen")
    if matching.session is not None:
        made.where("m.session = ?", text_value(matching.session))
    if matching.tag is not None:
        made.where("m.id IN (SELECT id FROM tags WHERE tag = ?)", text_value(matching.tag))


# -- texts -------------------------------------------------------------------------------------------------------------


def _text_terms(terms: Sequence[Term], negated: bool) -> list[tuple[str, tuple[str, ...]]]:
    return [
        (term.value, columns_of(term.field, term.value))
        for term in terms
        if term.field in COLUMNS and term.negated == negated and isinstance(term.value, str)
    ]


def _texts(made: Statement, conditions: Conditions) -> None:
    if not conditions:
        return
    # Without three characters in a row the index is of no use: all texts are compared.
    if pieces := " AND ".join(filter(None, (_pieces(text) for text, _ in conditions))):
        made.asks_index = True
        made.lead("words w", "w.rowid", "w.words MATCH ?", pieces)
    for text, columns in conditions:
        if not _is_decided(text, columns):
            made.compare(*_comparison(text, columns))


def _is_decided(text: str, columns: tuple[str, ...]) -> bool:
    """Whether the index knows: it has pieces of three characters, whatever their column."""
    return len(text) == _PIECE and columns == Searchable._fields and "\0" not in text


def _comparison(text: str, columns: tuple[str, ...]) -> tuple[str, list[Any]]:
    """A condition that compares a text, which is what the index can't do, with its values."""
    # The body is in a row of its own, which is read only where the others do not have the text.
    value = text_value(text)
    # GLOB takes 4/5 of the time of instr(), but ends its pattern at a NUL.
    by_pattern = len(value) <= MAX_PATTERN and "\0" not in value
    has = "{} GLOB ?" if by_pattern else "instr({}, ?)"
    conditions: list[str] = []
    for column in columns:
        place = _BODY if column == "body" else f"m.{COLUMN_NAMES[column]}"
        is_filled = f"{place} != '' AND " if column in _OFTEN_EMPTY else ""
        conditions.append(f"({is_filled}{has.format(place)})")
    return f"({' OR '.join(conditions)})", [_pattern(value) if by_pattern else value] * len(columns)


def _pattern(text: str) -> str:
    """The pattern of GLOB for texts that have this one in them."""
    return "*" + _SPECIAL.sub(r"[\g<0>]", text) + "*"


def _pieces(text: str) -> str:
    """What the index is asked for: some pieces of a text; empty if it has none."""
    text = text_value(text)
    last = len(text) - _PIECE
    if last < 0:
        return ""
    starts = range(last + 1) if last < MAX_PIECES else (*range(0, last, _PIECE)[: MAX_PIECES - 1], last)
    pieces = dict.fromkeys(text[start : start + _PIECE] for start in starts)
    quoted = (piece.replace('"', '""') for piece in pieces if "\0" not in piece)
    return " AND ".join(f'"{piece}"' for piece in quoted)


def text_value(text: str) -> str:
    """A text that SQLite takes: without halves of characters, which have no UTF-8."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


# -- the other terms ---------------------------------------------------------------------------------------------------

_STATES = {
    "read": "m.seen",
    "unread": "NOT m.seen",
    "tagged": "m.id IN (SELECT id FROM tags)",
    "refused": "m.refused",
}
_PARTS = {"attachment": "m.attachments > 0", "inline": "m.inline > 0", "tags": _STATES["tagged"]}


def _timestamp(value: datetime) -> list[float]:
    return [value.timestamp()]


_TERMS: dict[str, Callable[[Any], tuple[str, list[Any]]]] = {
    "is": lambda value: (_STATES[value], []),
    "has": lambda value: (_PARTS[value], []),
    "tag": lambda value: ("m.id IN (SELECT id FROM tags WHERE folded = ?)", [text_value(value)]),
    "mailbox": lambda value: (
        "m.id IN (SELECT b.id FROM counts c CROSS JOIN mailed b ON b.mailbox = c.mailbox WHERE c.folded = ?)",
        [text_value(value)],
    ),
    "before": lambda value: ("m.received < ?", _timestamp(value)),
    "after": lambda value: ("m.received >= ?", _timestamp(value)),
    "larger": lambda value: ("m.size > ?", [value]),
    "smaller": lambda value: ("m.size < ?", [value]),
}
