"""A store in a file."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from tempfile import mkdtemp
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_smtpd.runtime.computing import LARGE, compute
from twisted_smtpd.runtime.database import Database
from twisted_smtpd.store.interfaces import IMessageStore
from twisted_smtpd.store.listening import Kind, Listeners
from twisted_smtpd.store.memory import BIN_SECONDS
from twisted_smtpd.store.messages import Matching, NewMessage, StoredMessage
from twisted_smtpd.store.records import Arrival, Changed, change_tags, insert, messages, numbers, summaries, update
from twisted_smtpd.store.retention import Retention
from twisted_smtpd.store.schema import SCHEMA, check_sqlite, check_version, index_texts
from twisted_smtpd.store.searchable import Searchable
from twisted_smtpd.store.searching import MAX_ID, Statement, statement, text_value
from twisted_smtpd.store.summary import Change, Counts, Summary, summarise
from twisted_smtpd.store.together import Together

__all__ = ["TEMPORARY_MESSAGES", "SQLiteStore"]

log = Logger()

#: Messages that a store without a file keeps, unless it is told otherwise.
TEMPORARY_MESSAGES = 500
#: Messages that wait for the index at most; a search has them added first.
MAX_NOT_INDEXED = 1000
#: Messages that are compared with what is looked for, to count them.
EXACT_COUNT = 2000
T = TypeVar("T")


@implementer(IMessageStore)
class SQLiteStore:
    """Keeps messages in an SQLite database.

    Its methods return Deferreds.  They have to be called in one thread, in which the Deferreds fire.  Messages that
    come at the same time share a commit.

    :param path: the file; ``None`` for one in a temporary folder with mode 0700, which is removed by :meth:`close`.
    :param max_messages: how many messages are kept; 0 for any number; by default 500 without a path, and any number
        with one.  Deleted ones that can be brought back are counted, and go first.  Until the next :meth:`purge` there
        may be a tenth more, 100 at most.
    :param max_octets: how many octets they may have together; 0 for any number.
    :param max_age: seconds for which a message is kept; 0 keeps it forever.
    :param synchronous: see :class:`~twisted_smtpd.runtime.database.Database`.
    :param seconds: the time in seconds since 1970.
    :raises DatabaseError: if the file can't be used.
    :raises OSError: if it can't be made.
    :ivar path: the file.
    :ivar dropped: how many messages went because there was no room for them.
    """

    def __init__(
        self,
        path: str | None = None,
        *,
        max_messages: int | None = None,
        max_octets: int = 0,
        max_age: float = 0,
        synchronous: str = "FULL",
        seconds: Callable[[], float] = time.time,
    ) -> None:
        check_sqlite()
        self._folder = mkdtemp(prefix="twisted-smtpd-") if path is None else None
        self.path = path if path is not None else os.path.join(self._folder or "", "store.db")
        if max_messages is None:
            max_messages = TEMPORARY_MESSAGES if path is None else 0
        self._seconds = seconds
        self._retention = Retention(max_messages, max_octets, max_age, seconds)
        self._listeners = Listeners()
        self.dropped = 0
        # Messages that may not be in the index; a file may have some from before.
        self._not_indexed, self._at_purge = 1, 0
        try:
            check_version(self.path)
            # What is lost with the machine needs no disk that turns.
            level: Any = synchronous if path is not None else "NORMAL"
            self._database = Database(self.path, SCHEMA, synchronous=level)
            self._arrivals = Together(self._database, self._insert)
            self._dialogs = Together(self._database, _keep_transcripts)
        except BaseException:
            self._remove_folder()
            raise

    # -- what comes ----------------------------------------------------------------------------------------------------

    def add(self, message: NewMessage) -> Deferred[StoredMessage]:
        if len(message.content) > LARGE:
            return ensureDeferred(self._add_large(message))
        return self._add(message, *summarise(StoredMessage(0, message)))

    async def _add_large(self, message: NewMessage) -> StoredMessage:
        return await self._add(message, *await compute(summarise, StoredMessage(0, message)))

    def _add(self, message: NewMessage, summary: Summary, searchable: Searchable) -> Deferred[StoredMessage]:
        self._not_indexed += 1
        if self._not_indexed >= MAX_NOT_INDEXED:
            self._index()
        return self._arrivals.add(Arrival(message, summary, searchable)).addCallback(self._added, message, summary)

    def _insert(self, connection: sqlite3.Connection, arrivals: Sequence[Arrival]) -> Sequence[tuple[int, Changed]]:
        if not arrivals:
            return []
        first = insert(connection, arrivals)
        octets = sum(len(arrival.message.content) for arrival in arrivals)
        dropped = self._retention.make_room(connection, len(arrivals), octets)
        # What had to go is told of once, after the last of them.
        changes = [Changed()] * (len(arrivals) - 1) + [dropped]
        return [(first + place, change) for place, change in enumerate(changes)]

    def _index(self) -> Deferred[None]:
        # What comes while this waits in line may be in it or not; it is counted as if not.
        self._not_indexed = 0
        return self._database.write(index_texts).addErrback(self._index_failed)

    def _index_failed(self, failure: Failure) -> Failure:
        self._not_indexed += 1
        return failure

    def _added(self, result: tuple[int, Changed], message: NewMessage, summary: Summary) -> StoredMessage:
        id, dropped = result
        stored = StoredMessage(id, message)
        self._listeners.tell_new(stored, lambda: replace(summary, id=id))
        self._tell_dropped(dropped)
        return stored

    def _tell_dropped(self, dropped: Changed) -> None:
        self.dropped += len(dropped.ids)
        self._listeners.tell("deleted", *dropped)

    def purge(self) -> Deferred[None]:
        def purge(connection: sqlite3.Connection) -> Changed:
            aged = self._retention.purge(connection)
            if indexes:
                index_texts(connection)
            return aged

        # While many come it is left for later: those that go soon need no index.
        indexes, self._at_purge = 0 < self._not_indexed == self._at_purge, self._not_indexed
        if indexes:
            self._not_indexed = 0
        return self._database.write(purge).addCallback(self._tell_dropped)

    def _read(self, wanted: Statement, read: Callable[[sqlite3.Connection], T]) -> Deferred[T]:
        if not wanted.asks_index or not self._not_indexed:
            return self._database.read(read)
        return self._index().addCallback(lambda _: self._database.read(read))

    # -- what is there -------------------------------------------------------------------------------------------------

    def get(self, id: int) -> Deferred[StoredMessage | None]:
        end, values = "FROM messages m WHERE m.binned IS NULL AND m.id = ?", numbers([id])

        def get(connection: sqlite3.Connection) -> StoredMessage | None:
            found = messages(connection, end, values) if values else []
            return found[0] if found else None

        return self._database.read(get)

    def find(
        self, matching: Matching, limit: int | None = None, newest_first: bool = False
    ) -> Deferred[list[StoredMessage]]:
        wanted = statement(matching)
        end = f"ORDER BY {wanted.order} {'DESC' if newest_first else 'ASC'} LIMIT ?"
        values = [*wanted.values, -1 if limit is None else limit]
        return self._read(wanted, lambda connection: messages(connection, f"{wanted.sql} {end}", values))

    def summaries(
        self, matching: Matching, limit: int = 50, newest_first: bool = True, offset: int = 0
    ) -> Deferred[list[Summary]]:
        wanted = statement(matching)
        end = f"ORDER BY {wanted.order} {'DESC' if newest_first else 'ASC'} LIMIT ? OFFSET ?"
        values = [*wanted.values, min(limit, MAX_ID), min(offset, MAX_ID)]

        return self._read(wanted, lambda connection: summaries(connection, f"{wanted.sql} {end}", values))

    def ids(self, matching: Matching, limit: int | None = None) -> Deferred[list[int]]:
        wanted = statement(matching)
        sql = f"SELECT m.id {wanted.sql} ORDER BY {wanted.order} LIMIT ?"
        values = [*wanted.values, -1 if limit is None else limit]
        return self._read(wanted, lambda connection: [id for (id,) in connection.execute(sql, values)])

    def count(self, matching: Matching) -> Deferred[int]:
        """How many messages match.

        :param matching: see :meth:`IMessageStore.count`.
        :returns: fires with the number.  If texts are looked for, numbers above 2,000 may be too high by some
            messages: these have each three letters of a word, but not all of it.
        """
        return self.tally(matching).addCallback(lambda found: found[0])

    def tally(self, matching: Matching) -> Deferred[tuple[int, int]]:
        """How many messages match, and how many of them are unread; see :meth:`count`."""
        wanted = statement(matching)
        numbers = "SELECT count(*), coalesce(sum(NOT seen), 0) FROM"

        def tally(connection: sqlite3.Connection) -> tuple[int, int]:
            if not wanted.is_exact:
                limit = EXACT_COUNT + 1 if wanted.asks_index else -1
                some = f"{numbers} (SELECT m.seen {wanted.sql} LIMIT {limit})"
                found, unread = connection.execute(some, wanted.values).fetchone()
                if found != limit:
                    return found, unread
            found, unread = connection.execute(
                f"{numbers} (SELECT m.seen {wanted.index_sql})", wanted.index_values
            ).fetchone()
            return found, unread

        return self._read(wanted, tally)

    def counts(self, mailbox: str | None = None) -> Deferred[Counts]:
        sql, values = "SELECT total, unread, refused FROM totals", []
        if mailbox is not None:
            sql, values = "SELECT total, unread, refused FROM counts WHERE mailbox = ?", [text_value(mailbox)]
        return self._database.read(lambda connection: Counts(*(connection.execute(sql, values).fetchone() or ())))

    def mailboxes(self) -> Deferred[dict[str, Counts]]:
        sql = "SELECT mailbox, total, unread, refused FROM counts WHERE total > 0 OR refused > 0 ORDER BY mailbox"
        return self._database.read(lambda connection: {row[0]: Counts(*row[1:]) for row in connection.execute(sql)})

    def tags(self, mailbox: str | None = None) -> Deferred[dict[str, int]]:
        inside, values = "", []
        if mailbox is not None:
            inside = "AND EXISTS (SELECT 1 FROM mailed b WHERE b.mailbox = ? AND b.id = m.id)"
            values = [text_value(mailbox)]
        sql = (
            "SELECT tag, count(*) FROM tags t CROSS JOIN messages m ON m.id = t.id "
            f"WHERE m.binned IS NULL {inside} GROUP BY tag ORDER BY tag"
        )
        return self._database.read(lambda connection: dict(connection.execute(sql, values).fetchall()))

    # -- what is done with it ------------------------------------------------------------------------------------------

    def mark(self, ids: Iterable[int], seen: bool) -> Deferred[int]:
        wanted = numbers(ids)

        def mark(connection: sqlite3.Connection) -> Changed:
            return update(connection, wanted, "seen = ?", [int(seen)], "binned IS NULL")

        return self._database.write(mark).addCallback(self._changed, "seen" if seen else "unseen")

    def tag(self, ids: Iterable[int], add: Iterable[str] = (), remove: Iterable[str] = ()) -> Deferred[int]:
        wanted, added, removed = numbers(ids), sorted(map(text_value, add)), list(map(text_value, remove))

        def tag(connection: sqlite3.Connection) -> Changed:
            return change_tags(connection, wanted, added, removed)

        return self._database.write(tag).addCallback(self._changed, "tags")

    def delete(self, ids: Iterable[int]) -> Deferred[int]:
        wanted = numbers(ids)

        def delete(connection: sqlite3.Connection) -> Changed:
            return update(connection, wanted, "binned = ?", [self._seconds()], "binned IS NULL")

        return self._database.write(delete).addCallback(self._changed, "deleted")

    def restore(self, ids: Iterable[int]) -> Deferred[int]:
        wanted = numbers(ids)

        def restore(connection: sqlite3.Connection) -> Changed:
            return update(connection, wanted, "binned = NULL", [], f"binned > {self._seconds() - BIN_SECONDS!r}")

        return self._database.write(restore).addCallback(self._changed, "restored")

    def _changed(self, changed: Changed, kind: Kind) -> int:
        self._listeners.tell(kind, *changed)
        return len(changed.ids)

    # -- sessions ------------------------------------------------------------------------------------------------------

    def keep_transcript(self, session: str, transcript: str) -> Deferred[None]:
        return self._dialogs.add((text_value(session), text_value(transcript)))

    def transcript(self, session: str) -> Deferred[str | None]:
        def transcript(connection: sqlite3.Connection) -> str | None:
            row = connection.execute(
                "SELECT transcript FROM sessions WHERE session = ?", (text_value(session),)
            ).fetchone()
            return None if row is None else row[0]

        return self._database.read(transcript)

    # -- who is told ---------------------------------------------------------------------------------------------------

    def watch(self, listener: Callable[[StoredMessage], object]) -> Callable[[], None]:
        return self._listeners.watch(listener)

    def watch_changes(self, listener: Callable[[Change], object]) -> Callable[[], None]:
        return self._listeners.watch_changes(listener)

    def close(self) -> Deferred[None]:
        self._listeners.clear()
        return self._database.close().addCallback(lambda _: self._remove_folder())

    def _remove_folder(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def _keep_transcripts(connection: sqlite3.Connection, kept: Sequence[tuple[str, str]]) -> Sequence[None]:
    exists = "EXISTS (SELECT 1 FROM messages WHERE session = ?1)"
    connection.executemany(f"INSERT OR REPLACE INTO sessions SELECT ?1, ?2 WHERE {exists}", kept)
    return [None] * len(kept)
