"""A store's file, read and written without a server, for commands."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

from twisted_smtpd.runtime.database import DatabaseError, clear_error, connect
from twisted_smtpd.store.messages import Matching, NewMessage, StoredMessage
from twisted_smtpd.store.records import Arrival, insert, messages, update
from twisted_smtpd.store.schema import SCHEMA, check_sqlite, check_version, index_texts
from twisted_smtpd.store.searching import statement
from twisted_smtpd.store.summary import summarise

__all__ = ["StoreFile"]

# Messages that are read at a time.
_PORTION = 100


class StoreFile:
    """Reads and writes a store, also while a server runs on it: that waits for each commit, a moment.

    :param path: the file.
    :param create: whether it is made if it is not there.
    :raises DatabaseError: if it can't be used.
    :raises OSError: if it is not there, or can't be made.
    """

    def __init__(self, path: str, create: bool = False) -> None:
        check_sqlite()
        self._path = path
        if create:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600))
        elif not os.path.exists(path):
            raise FileNotFoundError(2, "there is no such file", path)
        check_version(path)
        self._connection = connect(path)
        try:
            self._connection.executescript(f"BEGIN IMMEDIATE;\n{SCHEMA};\nCOMMIT;")
        except sqlite3.Error as error:
            self._connection.close()
            raise clear_error(error, path) from None

    def add(self, new: Sequence[tuple[NewMessage, bool]]) -> None:
        """Add messages, in one commit.

        :param new: messages, each with whether it was read.
        :raises DatabaseError: if the file can't be written.
        :raises OSError: if the disk is full.
        """
        arrivals = [Arrival(message, *summarise(StoredMessage(0, message))) for message, _ in new]
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            first = insert(self._connection, arrivals)
            seen = [id for id, (_, was_read) in enumerate(new, first) if was_read]
            update(self._connection, seen, "seen = 1", (), "binned IS NULL")
            index_texts(self._connection)
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._clear(error) from None

    def count(self, matching: Matching) -> int:
        """How many messages match."""
        wanted = self._statement(matching)
        return int(self._connection.execute(f"SELECT count(*) {wanted.sql}", wanted.values).fetchone()[0])

    def find(self, matching: Matching) -> Iterator[StoredMessage]:
        """Read the messages that match, the oldest first."""
        wanted = self._statement(matching)
        sql = f"{wanted.sql} AND {wanted.order} > ? ORDER BY {wanted.order} LIMIT {_PORTION}"
        last = 0
        while found := messages(self._connection, sql, [*wanted.values, last]):
            yield from found
            last = found[-1].id

    def _statement(self, matching: Matching) -> Any:
        wanted = statement(matching)
        if wanted.asks_index:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                index_texts(self._connection)
                self._connection.execute("COMMIT")
            except sqlite3.Error as error:
                raise self._clear(error) from None
        return wanted

    def _clear(self, error: sqlite3.Error) -> BaseException:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
        clear = clear_error(error, self._path)
        return DatabaseError(f"{self._path}: {error}") if clear is error else clear

    def close(self) -> None:
        """Give up the file."""
        self._connection.close()
