"""From what is looked for to SQL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from twisted_smtpd.store.matching import COLUMNS
from twisted_smtpd.store.messages import Matching
from twisted_smtpd.store.query import Term
from twisted_smtpd.store.schema import COLUMN_NAMES
from twisted_smtpd.store.summary import Searchable

__all__ = ["MAX_ID", "Statement", "statement", "text_value"]

#: The largest number that SQLite has.
MAX_ID = 2**63 - 1

# Pieces of a text that the index is asked for; all of the text is compared with what it finds.
MAX_PIECES = 16
_PIECE = 3

Conditions = Sequence[tuple[str, tuple[str, ...]]]


class Statement:
    """A part of a SELECT: from FROM on, but for ORDER and LIMIT.

    :ivar order: the column by which the newest come first.
    """

    def __init__(self) -> None:
        self.tables = "messages m"
        self.order = "m.id"
        self._conditions: list[str] = ["m.binned IS NULL"]
        self._values: list[Any] = []
        self._leading: list[Any] = []

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
        return f"FROM {self.tables} WHERE {' AND '.join(self._conditions)}"

    @property
    def values(self) -> list[Any]:
        """The values of its parameters."""
        return [*self._leading, *self._values]


def statement(matching: Matching) -> Statement:
    """The SELECT that finds what is looked for.

    :param matching: what is looked for.
    """
    made = Statement()
    _texts(made, [*_wanted_texts(matching), *_text_terms(matching.terms, negated=False)])
    for condition in _text_terms(matching.terms, negated=True):
        expression, check, values = _search([condition])
        made.where(f"m.id NOT IN (SELECT f.rowid FROM texts f WHERE {expression}{check})", *values)
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


def _wanted_texts(matching: Matching) -> list[tuple[str, tuple[str, ...]]]:
    wanted = [
        (matching.sender, ("sender",)),
        (matching.to, ("to", "cc", "bcc")),
        (matching.subject, ("subject",)),
        *((word, Searchable._fields) for word in matching.text.split()),
    ]
    return [(text.casefold(), columns) for text, columns in wanted if text]


def _text_terms(terms: Sequence[Term], negated: bool) -> list[tuple[str, tuple[str, ...]]]:
    return [
        (term.value, COLUMNS[term.field])
        for term in terms
        if term.field in COLUMNS and term.negated == negated and isinstance(term.value, str)
    ]


def _texts(made: Statement, conditions: Conditions) -> None:
    if not conditions:
        return
    expression, check, values = _search(conditions)
    made.lead("texts f", "f.rowid", expression, values[0])
    made.where(check.removeprefix(" AND "), *values[1:])


def _search(conditions: Conditions) -> tuple[str, str, list[Any]]:
    """A condition for the index, one that compares the texts that it finds, and their values."""
    asked, checks, values = [], [], []
    for wanted, columns in conditions:
        text = text_value(wanted)
        if expression := _expression(text, columns):
            asked.append(expression)
        checks.append(f"({' OR '.join(f'instr(f.{COLUMN_NAMES[column]}, ?)' for column in columns)})")
        values += [text] * len(columns)
    # Without three characters in a row the index is of no use: all texts are compared.
    first, value = ("texts MATCH ?", " AND ".join(asked)) if asked else ("f.rowid > ?", -1)
    return first, f" AND {' AND '.join(checks)}", [value, *values]


def _expression(text: str, columns: tuple[str, ...]) -> str:
    """What the index is asked for: pieces of the text, each in one of the columns."""
    last = len(text) - _PIECE
    if last < 0:
        return ""
    starts = (*range(0, last, _PIECE)[: MAX_PIECES - 1], last)
    quote = '"'
    pieces = " AND ".join(
        f'"{piece.replace(quote, quote * 2)}"'
        for start in starts
        if "\0" not in (piece := text[start : start + _PIECE])
    )
    if not pieces:
        return ""
    where = "" if columns == Searchable._fields else f"{{{' '.join(COLUMN_NAMES[column] for column in columns)}}} : "
    return f"({where}({pieces}))"


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
        "EXISTS (SELECT 1 FROM mailed b JOIN counts c ON c.mailbox = b.mailbox WHERE b.id = m.id AND c.folded = ?)",
        [text_value(value)],
    ),
    "before": lambda value: ("m.received < ?", _timestamp(value)),
    "after": lambda value: ("m.received >= ?", _timestamp(value)),
    "larger": lambda value: ("m.size > ?", [value]),
    "smaller": lambda value: ("m.size < ?", [value]),
}
