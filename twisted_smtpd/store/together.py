"""What is to be written into a database: what comes at the same time is written together."""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Generic, TypeAlias, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from twisted_smtpd.runtime.database import Database

__all__ = ["Together"]

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")
Waiting = tuple[Item, "Deferred[Outcome]"]
Result: TypeAlias = "Outcome | Failure"


class Together(Generic[Item, Outcome]):
    """Writes things of one kind, as many in one go as wait.

    A call of :meth:`Database.write` for each would cost a savepoint and two changes of thread for each.

    :param database: the database.
    :param write: writes some of them, in the writer's thread, and returns what came of each.
    """

    def __init__(
        self, database: Database, write: Callable[[sqlite3.Connection, Sequence[Item]], Sequence[Outcome]]
    ) -> None:
        self._database, self._write_some = database, write
        # Filled in the server's thread, emptied in the writer's.
        self._waiting: deque[Waiting[Item, Outcome]] = deque()
        self._is_called = False

    def add(self, item: Item) -> Deferred[Outcome]:
        """Write one.

        :returns: fires with what came of it, when it is committed.
        """
        done: Deferred[Outcome] = Deferred(lambda _: None)
        self._waiting.append((item, done))
        # After the append: the writer says that it is not called before it looks.
        if not self._is_called:
            self._is_called = True
            taken: list[Waiting[Item, Outcome]] = []
            writing: Deferred[Any] = self._database.write(lambda connection: self._write(connection, taken))
            writing.addCallbacks(self._written, self._failed, callbackArgs=(taken,), errbackArgs=(taken,))
        return done

    def _write(self, connection: sqlite3.Connection, taken: list[Waiting[Item, Outcome]]) -> Sequence[Result[Outcome]]:
        self._is_called = False
        # Called a second time, it has those that it took before.
        self._take(taken)
        items = [item for item, _ in taken]
        if len(items) < 2:
            return self._write_some(connection, items)
        connection.execute("SAVEPOINT some")
        outcomes: Sequence[Result[Outcome]]
        try:
            outcomes = self._write_some(connection, items)
        except Exception:
            if not connection.in_transaction:
                # SQLite has rolled back all of it, as it does when the disk is full.
                raise
            connection.execute("ROLLBACK TO some")
            # Only those fail that have a reason to.
            outcomes = [self._write_one(connection, item) for item in items]
        connection.execute("RELEASE some")
        return outcomes

    def _take(self, taken: list[Waiting[Item, Outcome]]) -> None:
        # Both threads may be here while a database is closed.
        with suppress(IndexError):
            while True:
                taken.append(self._waiting.popleft())

    def _write_one(self, connection: sqlite3.Connection, item: Item) -> Result[Outcome]:
        connection.execute("SAVEPOINT one_of_some")
        outcome: Result[Outcome]
        try:
            [outcome] = self._write_some(connection, [item])
        except Exception as error:
            if not connection.in_transaction:
                raise
            connection.execute("ROLLBACK TO one_of_some")
            outcome = Failure(error)
        connection.execute("RELEASE one_of_some")
        return outcome

    def _written(self, outcomes: Sequence[Result[Outcome]], taken: Sequence[Waiting[Item, Outcome]]) -> None:
        for outcome, (_, done) in zip(outcomes, taken, strict=True):
            done.callback(outcome)

    def _failed(self, failure: Failure, taken: list[Waiting[Item, Outcome]]) -> None:
        if not taken:
            # The writer has not been called: the database is closed or locked.
            self._is_called = False
            self._take(taken)
        for _, done in taken:
            done.errback(failure)
