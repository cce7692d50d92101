"""Messages on their way into a database: those that come at the same time are written together."""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Union

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from twisted_smtpd.runtime.database import Database
from twisted_smtpd.store.records import Arrival, Changed, insert
from twisted_smtpd.store.retention import Retention

__all__ = ["Arrivals"]

# What became of a message: its number, and what had to go for it.
Outcome = Union["tuple[int, Changed]", Failure]
Waiting = tuple[Arrival, "Deferred[tuple[int, Changed]]"]


class Arrivals:
    """Writes messages, as many in one go as wait.

    A call of :meth:`Database.write` for each would cost a savepoint and two changes of thread for each.

    :param database: the database.
    :param retention: makes room for them.
    """

    def __init__(self, database: Database, retention: Retention) -> None:
        self._database, self._retention = database, retention
        # Filled in the server's thread, emptied in the writer's.
        self._waiting: deque[Waiting] = deque()
        self._is_called = False

    def add(self, arrival: Arrival) -> Deferred[tuple[int, Changed]]:
        """Write a message.

        :returns: fires with its number and with what had to go, when it is committed.
        """
        done: Deferred[tuple[int, Changed]] = Deferred(lambda _: None)
        self._waiting.append((arrival, done))
        # After the append: the writer says that it is not called before it looks.
        if not self._is_called:
            self._is_called = True
            taken: list[Waiting] = []
            writing = self._database.write(lambda connection: self._write(connection, taken))
            writing.addCallbacks(self._written, self._failed, callbackArgs=(taken,), errbackArgs=(taken,))
        return done

    def _write(self, connection: sqlite3.Connection, taken: list[Waiting]) -> list[Outcome]:
        self._is_called = False
        # Called a second time, it has those that it took before.
        self._take(taken)
        arrivals = [arrival for arrival, _ in taken]
        if len(arrivals) < 2:
            return self._write_some(connection, arrivals)
        connection.execute("SAVEPOINT some")
        try:
            outcomes = self._write_some(connection, arrivals)
        except Exception:
            if not connection.in_transaction:
                # SQLite has rolled back all of it, as it does when the disk is full.
                raise
            connection.execute("ROLLBACK TO some")
            # Only those fail that have a reason to.
            outcomes = [self._write_one(connection, arrival) for arrival in arrivals]
        connection.execute("RELEASE some")
        return outcomes

    def _take(self, taken: list[Waiting]) -> None:
        # Both threads may be here while a database is closed.
        with suppress(IndexError):
            while True:
                taken.append(self._waiting.popleft())

    def _write_one(self, connection: sqlite3.Connection, arrival: Arrival) -> Outcome:
        connection.execute("SAVEPOINT one_of_some")
        try:
            [outcome] = self._write_some(connection, [arrival])
        except Exception as error:
            if not connection.in_transaction:
                raise
            connection.execute("ROLLBACK TO one_of_some")
            outcome = Failure(error)
        connection.execute("RELEASE one_of_some")
        return outcome

    def _write_some(self, connection: sqlite3.Connection, arrivals: Sequence[Arrival]) -> list[Outcome]:
        if not arrivals:
            return []
        first = insert(connection, arrivals)
        octets = sum(len(arrival.message.content) for arrival in arrivals)
        dropped = self._retention.make_room(connection, len(arrivals), octets)
        # What had to go is told of once, after the last of them.
        changes = [Changed()] * (len(arrivals) - 1) + [dropped]
        return [(first + place, change) for place, change in enumerate(changes)]

    def _written(self, outcomes: list[Outcome], taken: Sequence[Waiting]) -> None:
        for outcome, (_, done) in zip(outcomes, taken, strict=True):
            done.callback(outcome)

    def _failed(self, failure: Failure, taken: list[Waiting]) -> None:
        if not taken:
            # The writer has not been called: the database is closed or locked.
            self._is_called = False
            self._take(taken)
        for _, done in taken:
            done.errback(failure)
