"""The tables of the queue on a disk, and all that is asked of them.

Each function works on a connection inside a transaction of its caller: so the server and ``twisted-smtpd queue`` share
them, in different processes.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from twisted_smtpd.queue.entries import (
    Delivery,
    NewMessage,
    Outcome,
    QueueFull,
    Usage,
    new_id,
    parameters_text,
    stored_recipient,
)

__all__ = [
    "DEAD",
    "HELD",
    "SCHEMA",
    "check_room",
    "insert",
    "is_there",
    "overdue",
    "prune",
    "remove_if_done",
    "settle",
    "start",
    "take",
    "usage",
]

#: In the place of the time when a delivery is due: it is held, or dead.
HELD, DEAD = 1e18, 2e18
# The dead letters that are kept; an older one is removed for each beyond.
DEAD_KEPT = 1000

SCHEMA = """
CREATE TABLE IF NOT EXISTS messages (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    arrived REAL NOT NULL,
    sender TEXT NOT NULL,
    size INTEGER NOT NULL,
    checksum INTEGER NOT NULL,
    in_file INTEGER NOT NULL,
    facts TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS messages_arrived ON messages (arrived);
CREATE TABLE IF NOT EXISTS bodies (message INTEGER PRIMARY KEY, content BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS deliveries (
    number INTEGER PRIMARY KEY,
    message INTEGER NOT NULL,
    destination TEXT NOT NULL,
    due REAL NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    warned INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS deliveries_due ON deliveries (destination, due);
CREATE INDEX IF NOT EXISTS deliveries_message ON deliveries (message);
CREATE TABLE IF NOT EXISTS recipients (
    delivery INTEGER NOT NULL,
    position INTEGER NOT NULL,
    address TEXT NOT NULL,
    parameters TEXT NOT NULL,
    reply TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (delivery, position)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS totals (
    one INTEGER PRIMARY KEY,
    messages INTEGER NOT NULL,
    octets INTEGER NOT NULL,
    asked INTEGER NOT NULL
);
INSERT OR IGNORE INTO totals VALUES (1, 0, 0, 0);
CREATE TRIGGER IF NOT EXISTS counted AFTER INSERT ON messages BEGIN
    UPDATE totals SET messages = messages + 1, octets = octets + NEW.size;
END;
CREATE TRIGGER IF NOT EXISTS uncounted AFTER DELETE ON messages BEGIN
    UPDATE totals SET messages = messages - 1, octets = octets - OLD.size;
END;
"""

# One step for each destination, however many deliveries there are: each is found at the start of its part of the index.
_DESTINATIONS = """
WITH RECURSIVE places (destination) AS (
    SELECT min(destination) FROM deliveries
    UNION ALL
    SELECT (SELECT min(destination) FROM deliveries WHERE deliveries.destination > places.destination)
    FROM places WHERE destination IS NOT NULL
)
SELECT destination, (SELECT min(due) FROM deliveries WHERE deliveries.destination = places.destination) AS first
FROM places WHERE destination IS NOT NULL AND first <= ? ORDER BY first
"""

Connection = sqlite3.Connection


def start(connection: Connection, now: float) -> None:
    """Make the queue ready after a start: all that is not held or dead is due.

    :param now: the queue's time.
    """
    connection.execute("UPDATE deliveries SET due = ? WHERE due > ? AND due < ?", (now, now, HELD))
    # The clock may have been set back: an age is never below 0.
    connection.execute("UPDATE messages SET arrived = ? WHERE arrived > ?", (now, now))
    connection.execute("UPDATE totals SET (messages, octets) = (SELECT count(*), ifnull(sum(size), 0) FROM messages)")


def check_room(connection: Connection, size: int, max_messages: int, max_octets: int) -> None:
    """Check that a message fits.

    :param size: its octets.
    :raises QueueFull: if it does not.
    """
    messages, octets = connection.execute("SELECT messages, octets FROM totals").fetchone()
    if messages >= max_messages:
        raise QueueFull(f"the queue has its {max_messages:,} messages")
    if octets + size > max_octets:
        raise QueueFull(f"the queue has its {max_octets:,} octets")


def insert(connection: Connection, message: NewMessage, now: float, id: str | None = None) -> str:
    """Add a message, whose deliveries are due at once.

    :param id: its id, if its content is in a file of that name.
    :returns: its id.
    """
    in_file = id is not None
    id = id or new_id(now)
    row = connection.execute(
        "INSERT INTO messages (id, arrived, sender, size, checksum, in_file, facts) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            *(id, now, message.sender, len(message.content), zlib.crc32(message.content), in_file),
            json.dumps(message.facts),
        ),
    )
    number = row.lastrowid
    if not in_file:
        connection.execute("INSERT INTO bodies VALUES (?, ?)", (number, message.content))
    deliveries: dict[str, int | None] = {}
    for position, recipient in enumerate(message.recipients):
        destination = message.destinations[position]
        if destination not in deliveries:
            row = connection.execute(
                "INSERT INTO deliveries (message, destination, due) VALUES (?, ?, ?)", (number, destination, now)
            )
            deliveries[destination] = row.lastrowid
        connection.execute(
            "INSERT INTO recipients (delivery, position, address, parameters) VALUES (?, ?, ?, ?)",
            (deliveries[destination], position, recipient.address, parameters_text(recipient)),
        )
    return id


def take(
    connection: Connection, now: float, limit: int, skip: Collection[str], taken: Mapping[int, str]
) -> tuple[list[Delivery], list[int]]:
    """Read deliveries that are due, the longest due first, about as many for each destination.

    :param limit: how many at most.
    :param skip: destinations of which none is wanted.
    :param taken: deliveries that are on their way, with their destinations.
    :returns: the deliveries; the numbers of those that can't be read.
    """
    places = [place for (place, _) in connection.execute(_DESTINATIONS, (now,)) if place not in skip]
    under_way = Counter(taken.values())
    found: list[int] = []
    for index, place in enumerate(places):
        share = -(-(limit - len(found)) // (len(places) - index))
        if share <= 0:
            break
        rows = connection.execute(
            "SELECT number FROM deliveries WHERE destination = ? AND due <= ? ORDER BY due LIMIT ?",
            (place, now, share + under_way[place]),
        )
        found += [number for (number,) in rows if number not in taken][:share]
    return _load_all(connection, found)


def overdue(
    connection: Connection, arrived: float, warned: bool, limit: int, among: Collection[str], taken: Collection[int]
) -> tuple[list[Delivery], list[int]]:
    """Read deliveries of old messages, except those that are held or dead; see :meth:`IQueue.overdue`.

    :param arrived: until when the messages were accepted.
    """
    rows = connection.execute(
        "SELECT deliveries.number, destination FROM messages JOIN deliveries ON message = messages.number "
        "WHERE arrived <= ? AND due < ? AND (? OR NOT warned) ORDER BY arrived",
        (arrived, HELD, warned),
    )
    found: list[int] = []
    for number, destination in rows:
        if destination in among and number not in taken:
            found.append(number)
            if len(found) == limit:
                break
    rows.close()
    return _load_all(connection, found)


def _load_all(connection: Connection, numbers: list[int]) -> tuple[list[Delivery], list[int]]:
    found, unreadable = [], []
    for number in numbers:
        try:
            found.append(_load(connection, number))
        except (sqlite3.DatabaseError, ValueError, TypeError):
            unreadable.append(number)
    return found, unreadable


def _load(connection: Connection, number: int) -> Delivery:
    row = connection.execute(
        "SELECT message, id, arrived, sender, size, checksum, facts, destination, attempts, warned, content "
        "FROM deliveries JOIN messages ON message = messages.number LEFT JOIN bodies USING (message) "
        "WHERE deliveries.number = ?",
        (number,),
    ).fetchone()
    message, id, arrived, sender, size, checksum, facts, destination, attempts, warned, content = row
    recipients, last_reply = {}, ""
    for position, address, parameters, reply in connection.execute(
        "SELECT position, address, parameters, reply FROM recipients WHERE delivery = ? ORDER BY position", (number,)
    ):
        recipients[position] = stored_recipient(address, parameters)
        last_reply = reply or last_reply
    return Delivery(
        *(number, message, id, arrived, sender, size, checksum, json.loads(facts), destination, attempts),
        *(bool(warned), recipients, last_reply, content),
    )


def is_there(connection: Connection, delivery: Delivery) -> bool:
    """Whether a delivery has not been deleted."""
    return connection.execute("SELECT 1 FROM deliveries WHERE number = ?", (delivery.number,)).fetchone() is not None


def settle(
    connection: Connection, delivery: Delivery, outcomes: Mapping[int, Outcome], due: float, warned: bool
) -> tuple[bool, bool]:
    """Note what has become of the recipients; see :meth:`IQueue.settle`.

    :param outcomes: for each position.
    :returns: whether the delivery was still there; whether its message is gone now.
    """
    if not is_there(connection, delivery):
        return False, False
    kinds: dict[str, list[int]] = {"delivered": [], "bounced": [], "dead": [], "later": []}
    for position, outcome in outcomes.items():
        kinds[outcome.kind].append(position)
    connection.executemany(
        "DELETE FROM recipients WHERE delivery = ? AND position = ?",
        [(delivery.number, position) for position in (*kinds["delivered"], *kinds["bounced"])],
    )
    connection.executemany(
        "UPDATE recipients SET reply = ? WHERE delivery = ? AND position = ?",
        [(str(outcomes[one].reply), delivery.number, one) for one in (*kinds["later"], *kinds["dead"])],
    )
    if kinds["later"]:
        connection.execute(
            "UPDATE deliveries SET attempts = attempts + 1, warned = warned OR ?, "
            "due = CASE WHEN due >= ? THEN due ELSE ? END WHERE number = ?",
            (warned, HELD, due, delivery.number),
        )
        _bury(connection, delivery, kinds["dead"])
    elif kinds["dead"]:
        connection.execute("UPDATE deliveries SET due = ? WHERE number = ?", (DEAD, delivery.number))
    else:
        connection.execute("DELETE FROM deliveries WHERE number = ?", (delivery.number,))
    return True, remove_if_done(connection, delivery.message)


def _bury(connection: Connection, delivery: Delivery, positions: list[int]) -> None:
    """Make a delivery of its own of the recipients that are dead."""
    if not positions:
        return
    row = connection.execute(
        "INSERT INTO deliveries (message, destination, due, attempts) VALUES (?, ?, ?, ?)",
        (delivery.message, delivery.destination, DEAD, delivery.attempts + 1),
    )
    connection.executemany(
        "UPDATE recipients SET delivery = ? WHERE delivery = ? AND position = ?",
        [(row.lastrowid, delivery.number, position) for position in positions],
    )


def remove_if_done(connection: Connection, message: int) -> bool:
    """Remove a message that has no deliveries left.

    :returns: whether it was removed.
    """
    if connection.execute("SELECT 1 FROM deliveries WHERE message = ?", (message,)).fetchone() is not None:
        return False
    connection.execute("DELETE FROM bodies WHERE message = ?", (message,))
    connection.execute("DELETE FROM messages WHERE number = ?", (message,))
    return True


def prune(connection: Connection) -> list[str]:
    """Remove dead letters beyond the number that is kept, the oldest first.

    :returns: the ids of messages that are gone.
    """
    rows = connection.execute(
        "SELECT number, message FROM deliveries WHERE due = ? ORDER BY number DESC LIMIT -1 OFFSET ?", (DEAD, DEAD_KEPT)
    ).fetchall()
    return list(_removed(connection, rows))


def _removed(connection: Connection, rows: list[Any]) -> Iterator[str]:
    for number, message in rows:
        (id,) = connection.execute("SELECT id FROM messages WHERE number = ?", (message,)).fetchone()
        connection.execute("DELETE FROM recipients WHERE delivery = ?", (number,))
        connection.execute("DELETE FROM deliveries WHERE number = ?", (number,))
        if remove_if_done(connection, message):
            yield id


def usage(connection: Connection, now: float) -> Usage:
    """How full the queue is."""
    messages, octets, asked = connection.execute("SELECT messages, octets, asked FROM totals").fetchone()
    (oldest,) = connection.execute("SELECT min(arrived) FROM messages").fetchone()
    return Usage(messages, octets, max(0.0, now - oldest) if messages else 0.0, asked)
