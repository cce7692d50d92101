"""Which messages of a database go, and when."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from twisted_smtpd.store.memory import BIN_SECONDS
from twisted_smtpd.store.records import PORTION, Changed, mailboxes_of, portions

__all__ = ["Retention"]

# Messages above the limit, at most, until the next purge.
MAX_SLACK = 100


class Retention:
    """Removes messages: deleted ones after ten minutes, old ones, and the oldest where there are too many.

    Its methods are called in the thread that writes.

    :param max_messages: how many messages are kept; 0 for any number.
    :param max_octets: how many octets they may have together; 0 for any number.
    :param max_age: seconds for which a message is kept; 0 keeps it forever.
    :param seconds: the time in seconds since 1970.
    """

    def __init__(self, max_messages: int, max_octets: int, max_age: float, seconds: Callable[[], float]) -> None:
        if min(max_messages, max_octets, max_age) < 0:
            raise ValueError("a limit of a store is 0 or more")
        self._max_messages, self._max_octets, self._max_age = max_messages, max_octets, max_age
        self._seconds = seconds
        # A tenth more may come before the oldest go: many at a time cost little each.
        self._slack = min(max_messages // 10, MAX_SLACK)
        # What is sure to be free, so that not each message asks the database.
        self._free_messages = self._free_octets = 0
        # Messages whose rows have to be removed, that is many at a time.
        self._gone = 0

    def make_room(self, connection: sqlite3.Connection, number: int, octets: int) -> Changed:
        """Remove what there is no room for, now that messages have come.

        :param number: how many have come.
        :param octets: how many octets they have together.
        :returns: what is gone, without messages that were deleted before.
        """
        self._free_messages -= number
        self._free_octets -= octets
        enough = self._free_messages >= -self._slack or not self._max_messages
        if enough and (self._free_octets >= 0 or not self._max_octets):
            return Changed()
        dropped = self._drop_all(connection)
        if self._gone >= PORTION:
            self._remove_gone(connection)
        return dropped

    def _drop_all(self, connection: sqlite3.Connection) -> Changed:
        aged, dropped = self._drop_aged(connection), self._drop(connection)
        return Changed((*aged.ids, *dropped.ids), aged.mailboxes | dropped.mailboxes)

    def _drop(self, connection: sqlite3.Connection) -> Changed:
        sql = "SELECT kept, octets, (SELECT max(id) FROM messages) FROM totals"
        kept, octets, newest = connection.execute(sql).fetchone()
        dropped: list[int] = []
        mailboxes: frozenset[str] = frozenset()
        for condition in ("binned IS NOT NULL AND binned > 0 ORDER BY binned, id", "binned IS NULL ORDER BY id"):
            sql = f"SELECT id, size FROM messages WHERE id < ? AND {condition} LIMIT {PORTION}"
            while self._lacks_room(kept, octets) and (rows := connection.execute(sql, (newest,)).fetchall()):
                chosen: list[int] = []
                while rows and self._lacks_room(kept, octets):
                    id, size = rows.pop(0)
                    chosen.append(id)
                    kept, octets = kept - 1, octets - size
                if "NOT NULL" not in condition:
                    dropped += chosen
                    mailboxes |= mailboxes_of(connection, chosen)
                for portion, marks in portions(chosen):
                    connection.execute(f"UPDATE messages SET binned = 0 WHERE id IN ({marks})", portion)
                self._gone += len(chosen)
        self._free_messages, self._free_octets = self._max_messages - kept, self._max_octets - octets
        return Changed(tuple(dropped), mailboxes)

    def _lacks_room(self, kept: int, octets: int) -> bool:
        return bool(0 < self._max_messages < kept or 0 < self._max_octets < octets)

    def purge(self, connection: sqlite3.Connection) -> Changed:
        """Remove what is older than it may be, and for good what is gone.

        :returns: as :meth:`make_room`.
        """
        dropped = self._drop_all(connection)
        self._remove_gone(connection)
        return dropped

    def _remove_gone(self, connection: sqlite3.Connection) -> None:
        gone = _ids(connection, "binned <= ?", self._seconds() - BIN_SECONDS)
        _remove(connection, gone)
        if gone:
            # Clients may choose the names of mailboxes, so empty ones are not kept.
            connection.execute(
                "DELETE FROM counts WHERE total = 0 AND refused = 0 "
                "AND NOT EXISTS (SELECT 1 FROM mailed WHERE mailed.mailbox = counts.mailbox)"
            )
        self._gone = 0

    def _drop_aged(self, connection: sqlite3.Connection) -> Changed:
        if not self._max_age:
            return Changed()
        aged = _ids(connection, "binned IS NULL AND received < ?", self._seconds() - self._max_age)
        mailboxes = mailboxes_of(connection, aged)
        for portion, marks in portions(aged):
            connection.execute(f"UPDATE messages SET binned = 0 WHERE id IN ({marks})", portion)
        return Changed(tuple(aged), mailboxes)


def _ids(connection: sqlite3.Connection, condition: str, value: float) -> list[int]:
    return [id for (id,) in connection.execute(f"SELECT id FROM messages WHERE {condition}", (value,))]


def _remove(connection: sqlite3.Connection, ids: list[int]) -> None:
    for portion, marks in portions(ids):
        chosen = f"WHERE id IN ({marks})"
        sessions = connection.execute(f"SELECT DISTINCT session FROM messages {chosen}", portion).fetchall()
        connection.execute(f"DELETE FROM messages {chosen}", portion)
        connection.executemany(
            "DELETE FROM sessions WHERE session = ?1 AND NOT EXISTS (SELECT 1 FROM messages WHERE session = ?1)",
            sessions,
        )
