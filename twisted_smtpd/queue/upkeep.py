"""What a person sees and does in the tables of a queue, also while a server uses it.

Each function works on a connection.  Those that change something do so in a transaction of their own for some
messages at a time, so that the server never waits for long.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from twisted_smtpd.queue.tables import DEAD, HELD, remove_if_done

__all__ = ["Listed", "Waiting", "delete", "hold", "listed", "number_of", "numbers", "retry", "retry_all"]

# Messages that are changed in one transaction.
CHUNK = 500

Connection = sqlite3.Connection


@dataclass(frozen=True)
class Waiting:
    """A recipient that is not settled.

    :ivar address: the recipient.
    :ivar due: when it is tried; :data:`~twisted_smtpd.queue.tables.HELD` or ``DEAD``.
    :ivar attempts: how many have failed.
    :ivar reply: what was answered to the last one; ``""`` before the first.
    """

    address: str
    due: float
    attempts: int
    reply: str

    @property
    def state(self) -> str:
        """``"held"``, ``"dead"``, ``"deferred"`` after an attempt, ``"queued"`` before."""
        if self.due >= DEAD:
            return "dead"
        if self.due >= HELD:
            return "held"
        return "deferred" if self.attempts else "queued"


@dataclass(frozen=True)
class Listed:
    """A message, as a person sees it.

    :ivar number: names it in the tables.
    :ivar id: its id.
    :ivar arrived: when it was accepted, in seconds since 1970.
    :ivar sender: the reverse-path's mailbox.
    :ivar size: its octets.
    :ivar in_file: whether it is in a file of its own.
    :ivar facts: what is known of its session.
    :ivar recipients: those that are not settled.
    """

    number: int
    id: str
    arrived: float
    sender: str
    size: int
    in_file: bool
    facts: dict[str, Any]
    recipients: Sequence[Waiting]


def numbers(connection: Connection, which: str = "all") -> list[int]:
    """The messages in the queue, the oldest first.

    :param which: ``"all"``, ``"held"`` or ``"dead"``: those that have such a recipient.
    """
    low, high = {"all": (0.0, DEAD * 2), "held": (HELD, DEAD), "dead": (DEAD, DEAD * 2)}[which]
    rows = connection.execute(
        "SELECT DISTINCT message FROM deliveries WHERE due >= ? AND due < ? ORDER BY message", (low, high)
    )
    return [number for (number,) in rows]


def number_of(connection: Connection, id: str) -> int | None:
    """The message with an id; ``None`` if there is none."""
    row = connection.execute("SELECT number FROM messages WHERE id = ?", (id,)).fetchone()
    return None if row is None else int(row[0])


def listed(connection: Connection, number: int) -> Listed | None:
    """A message; ``None`` if it is not there any more."""
    row = connection.execute(
        "SELECT number, id, arrived, sender, size, in_file, facts FROM messages WHERE number = ?", (number,)
    ).fetchone()
    if row is None:
        return None
    recipients = connection.execute(
        "SELECT address, due, attempts, reply FROM deliveries JOIN recipients ON delivery = deliveries.number "
        "WHERE message = ? ORDER BY position",
        (number,),
    )
    number, id, arrived, sender, size, in_file, facts = row
    try:
        known = json.loads(facts)
    except ValueError:
        # It is damaged; the rest may still be of use.
        known = {}
    waiting = [Waiting(*one) for one in recipients]
    return Listed(number, id, arrived, sender, size, bool(in_file), known, waiting)


def _chunks(connection: Connection, found: Sequence[int]) -> Iterator[Sequence[int]]:
    """Some messages at a time, each time in a transaction."""
    for begin in range(0, len(found), CHUNK):
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield found[begin : begin + CHUNK]
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")


def hold(connection: Connection, found: Sequence[int]) -> Iterator[int]:
    """Have messages wait until somebody retries them.

    :returns: yields how many were changed, after each transaction.
    """
    for chunk in _chunks(connection, found):
        connection.executemany(
            "UPDATE deliveries SET due = ? WHERE message = ? AND due < ?", [(HELD, one, HELD) for one in chunk]
        )
        yield len(chunk)


def retry(connection: Connection, found: Sequence[int], now: float) -> Iterator[int]:
    """Have messages tried now, also those that are held or dead.

    :param now: seconds since 1970.
    """
    for chunk in _chunks(connection, found):
        connection.executemany("UPDATE deliveries SET due = ? WHERE message = ?", [(now, one) for one in chunk])
        _ask_for_all(connection)
        yield len(chunk)


def retry_all(connection: Connection, now: float) -> Iterator[int]:
    """Have all messages tried now that are neither held nor dead."""
    rows = connection.execute("SELECT DISTINCT message FROM deliveries WHERE due < ?", (HELD,)).fetchall()
    for chunk in _chunks(connection, [number for (number,) in rows]):
        connection.executemany(
            "UPDATE deliveries SET due = ? WHERE message = ? AND due < ?", [(now, one, HELD) for one in chunk]
        )
        _ask_for_all(connection)
        yield len(chunk)


def _ask_for_all(connection: Connection) -> None:
    """Have the server try destinations that it could not reach."""
    connection.execute("UPDATE totals SET asked = asked + 1")


def delete(connection: Connection, found: Sequence[int]) -> Iterator[list[str]]:
    """Remove messages; the sender gets no bounce.

    :returns: yields the ids of those that have a file, which is to be removed then, after each transaction.
    """
    for chunk in _chunks(connection, found):
        files: list[str] = []
        for number in chunk:
            files += [
                id for (id,) in connection.execute("SELECT id FROM messages WHERE number = ? AND in_file", (number,))
            ]
            connection.execute(
                "DELETE FROM recipients WHERE delivery IN (SELECT number FROM deliveries WHERE message = ?)", (number,)
            )
            connection.execute("DELETE FROM deliveries WHERE message = ?", (number,))
            remove_if_done(connection, number)
        yield files
