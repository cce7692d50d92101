"""Messages as rows of a database; most of a row is JSON."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timezone
from typing import Any, NamedTuple

from twisted_smtpd.session import Recipient
from twisted_smtpd.store.messages import NewMessage, SessionFacts, StoredMessage
from twisted_smtpd.store.schema import COLUMN_NAMES
from twisted_smtpd.store.searchable import Searchable
from twisted_smtpd.store.searching import MAX_ID, text_value
from twisted_smtpd.store.summary import Address, Summary

__all__ = [
    "PORTION",
    "Arrival",
    "Changed",
    "change_tags",
    "insert",
    "mailboxes_of",
    "messages",
    "numbers",
    "portions",
    "summaries",
    "update",
]

#: Numbers of messages in one statement.
PORTION = 500


class Arrival(NamedTuple):
    """A message with what is shown and searched of it."""

    message: NewMessage
    summary: Summary
    searchable: Searchable


class Changed(NamedTuple):
    """Messages that something was done with.

    :ivar ids: their numbers.
    :ivar mailboxes: the mailboxes that they are in.
    """

    ids: tuple[int, ...] = ()
    mailboxes: frozenset[str] = frozenset()


_MESSAGE_COLUMNS = (
    *("id", "received", "size", "seen", "refused", "attachments", "inline", "session"),
    *(name for column, name in COLUMN_NAMES.items() if column != "body"),
)
_INSERT_MESSAGE = (
    f"INSERT INTO messages ({', '.join(_MESSAGE_COLUMNS)}) VALUES ({', '.join('?' * len(_MESSAGE_COLUMNS))})"
)
_INSERT_CONTENT = "INSERT INTO contents VALUES (?, ?, ?, ?, ?)"
_INSERT_MAILED = "INSERT INTO mailed VALUES (?, ?, ?)"
_COUNT = """
    INSERT INTO counts VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE
    SET total = total + excluded.total, unread = unread + excluded.unread, refused = refused + excluded.refused"""
_dump = json.JSONEncoder(separators=(",", ":")).encode


def dump_envelope(message: NewMessage) -> str:
    """All of a message but its content, as JSON."""
    facts = message.session
    return _dump(
        [
            message.mail_from,
            message.mail_options,
            [[one.address, one.options, one.parameters] for one in message.recipients],
            [facts.id, facts.peer, facts.helo, facts.extended, facts.tls, facts.user],
            message.mailboxes,
            message.refusal,
            message.received.timestamp(),
        ]
    )


def load_message(envelope: str, content: bytes) -> NewMessage:
    """A message from what :func:`dump_envelope` made of it, and its content."""
    mail_from, mail_options, recipients, facts, mailboxes, refusal, received = json.loads(envelope)
    session, peer, *others = facts
    peer = tuple(peer) if isinstance(peer, list) else peer
    return NewMessage(
        content,
        mail_from,
        tuple(mail_options),
        tuple(Recipient(*one) for one in recipients),
        SessionFacts(session, peer, *others),
        mailboxes[0],
        refusal,
        _time(received),
        tuple(mailboxes),
    )


def dump_summary(summary: Summary) -> str:
    """What a list shows of a message, but what changes, as JSON."""
    return _dump(
        [
            summary.mailboxes,
            summary.sender and _pair(summary.sender),
            *([_pair(one) for one in part] for part in (summary.to, summary.cc, summary.bcc, summary.reply_to)),
            summary.mail_from,
            summary.recipients,
            summary.subject,
            summary.snippet,
            summary.size,
            summary.received.timestamp(),
            summary.message_id,
            summary.attachments,
            summary.inline,
            summary.refusal,
            summary.session,
            summary.user,
        ]
    )


def load_summary(id: int, text: str, seen: bool, tags: tuple[str, ...]) -> Summary:
    """A summary from what :func:`dump_summary` made of it, and what may have changed since."""
    kept: list[Any] = json.loads(text)
    mailboxes, sender, *addresses = kept[:6]
    mail_from, recipients, subject, snippet, size, received, message_id, attachments, inline = kept[6:15]
    refusal, session, user = kept[15:]
    to, cc, bcc, reply_to = (tuple(Address(*one) for one in part) for part in addresses)
    return Summary(
        id,
        tuple(mailboxes),
        Address(*sender) if sender else None,
        to,
        cc,
        bcc,
        reply_to,
        mail_from,
        tuple(recipients),
        subject,
        snippet,
        size,
        _time(received),
        message_id,
        attachments,
        inline,
        seen,
        tags,
        refusal,
        session,
        user,
    )


def _pair(address: Address) -> tuple[str, str]:
    return address.name, address.address


def _time(timestamp: float) -> datetime:
    return datetime.fromtimestamp(timestamp, timezone.utc)


# -- rows --------------------------------------------------------------------------------------------------------------


def portions(ids: Sequence[int]) -> Iterator[tuple[Sequence[int], str]]:
    """Numbers in portions that a statement can have, each with as many question marks."""
    for start in range(0, len(ids), PORTION):
        portion = ids[start : start + PORTION]
        yield portion, ",".join("?" * len(portion))


def numbers(ids: Iterable[int]) -> list[int]:
    """Numbers that a message can have, each once."""
    return [id for id in dict.fromkeys(ids) if 0 < id <= MAX_ID]


def insert(connection: sqlite3.Connection, arrivals: Sequence[Arrival]) -> int:
    """Put messages into the tables.

    :returns: the number of the first; the others follow.
    """
    [last] = connection.execute("SELECT max(seq) FROM sqlite_sequence WHERE name = 'messages'").fetchone()
    first = (last or 0) + 1
    numbered = list(enumerate(arrivals, first))
    connection.executemany(_INSERT_MESSAGE, [_row(id, *arrival) for id, arrival in numbered])
    connection.executemany(
        _INSERT_CONTENT,
        [
            (id, dump_summary(summary), searchable.body, dump_envelope(message), message.content)
            for id, (message, summary, searchable) in numbered
        ],
    )
    mailed: list[tuple[str, int, int]] = []
    accepted: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    for id, (message, _, _) in numbered:
        names = list(dict.fromkeys(map(text_value, message.mailboxes)))
        mailed += [(name, id, place) for place, name in enumerate(names)]
        (accepted if message.refusal is None else refused).update(names)
    connection.executemany(_INSERT_MAILED, mailed)
    connection.executemany(
        _COUNT, [(name, name.casefold(), accepted[name], accepted[name], refused[name]) for name in accepted | refused]
    )
    return first


def _row(id: int, message: NewMessage, summary: Summary, searchable: Searchable) -> tuple[Any, ...]:
    received, refused = message.received.timestamp(), message.refusal is not None
    session = text_value(message.session.id)
    parts = summary.attachments, summary.inline
    return (id, received, summary.size, 0, refused, *parts, session, *searchable[:-1])


def messages(connection: sqlite3.Connection, end: str, values: Sequence[Any]) -> list[StoredMessage]:
    """Read messages.

    :param end: the statement from FROM on.
    :param values: its values.
    """
    rows = connection.execute(f"SELECT m.id, m.seen {end}", values).fetchall()
    tags = tags_of(connection, [id for id, _ in rows])
    found: list[StoredMessage] = []
    for id, seen in rows:
        envelope, content = connection.execute("SELECT envelope, content FROM contents WHERE id = ?", (id,)).fetchone()
        found.append(StoredMessage(id, load_message(envelope, content), bool(seen), frozenset(tags.get(id, ()))))
    return found


def summaries(connection: sqlite3.Connection, end: str, values: Sequence[Any]) -> list[Summary]:
    """Read summaries; the parameters are those of :func:`messages`."""
    rows = connection.execute(f"SELECT m.id, m.seen {end}", values).fetchall()
    ids = [id for id, _ in rows]
    tags, texts = tags_of(connection, ids), dict[int, str]()
    for portion, marks in portions(ids):
        texts.update(connection.execute(f"SELECT id, summary FROM contents WHERE id IN ({marks})", portion))
    return [load_summary(id, texts[id], bool(seen), tags.get(id, ())) for id, seen in rows]


def tags_of(connection: sqlite3.Connection, ids: Sequence[int]) -> dict[int, tuple[str, ...]]:
    """The tags of messages, those of each sorted."""
    found: dict[int, tuple[str, ...]] = {}
    for portion, marks in portions(ids):
        for id, tag in connection.execute(f"SELECT id, tag FROM tags WHERE id IN ({marks}) ORDER BY tag", portion):
            found[id] = (*found.get(id, ()), tag)
    return found


def mailboxes_of(connection: sqlite3.Connection, ids: Sequence[int]) -> frozenset[str]:
    """The mailboxes that some messages are in."""
    found: set[str] = set()
    for portion, marks in portions(ids):
        found.update(
            mailbox
            for (mailbox,) in connection.execute(f"SELECT DISTINCT mailbox FROM mailed WHERE id IN ({marks})", portion)
        )
    return frozenset(found)


def update(
    connection: sqlite3.Connection, ids: Sequence[int], change: str, values: Sequence[Any], condition: str
) -> Changed:
    """Change messages.

    :param change: what comes after SET; it has as many question marks as ``values``.
    :param condition: which of them.
    """
    found: list[int] = []
    for portion, marks in portions(ids):
        sql = f"UPDATE messages SET {change} WHERE {condition} AND id IN ({marks}) RETURNING id"
        found += [id for (id,) in connection.execute(sql, (*values, *portion)).fetchall()]
    found.sort()
    return Changed(tuple(found), mailboxes_of(connection, found))


def change_tags(
    connection: sqlite3.Connection, ids: Sequence[int], add: Sequence[str], remove: Sequence[str]
) -> Changed:
    """Give messages tags, and take some from them."""
    found: list[int] = []
    for portion, marks in portions(ids):
        sql = f"SELECT id FROM messages WHERE binned IS NULL AND id IN ({marks})"
        found += [id for (id,) in connection.execute(sql, portion)]
    added = ((tag, tag.casefold(), id) for tag in add for id in found)
    connection.executemany("INSERT OR IGNORE INTO tags VALUES (?, ?, ?)", added)
    connection.executemany("DELETE FROM tags WHERE tag = ? AND id = ?", ((tag, id) for tag in remove for id in found))
    return Changed(tuple(found), mailboxes_of(connection, found))
