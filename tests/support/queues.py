"""A queue in memory, for tests of what delivers: the tables are those of the disk, and nothing waits."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping, Sequence

from twisted.internet.task import Clock
from zope.interface import implementer

from twisted_smtpd.queue import tables
from twisted_smtpd.queue.entries import Delivery, NewMessage, Outcome, Usage
from twisted_smtpd.queue.interfaces import IQueue


@implementer(IQueue)
class MemoryQueue:
    """A queue.

    :ivar failing: the errors that the next calls of ``settle`` raise.
    :ivar damaged: ids of messages that can't be read, with the errors.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        self.connection.executescript(tables.SCHEMA)
        self.taken: dict[int, str] = {}
        self.failing: list[Exception] = []
        self.damaged: dict[str, Exception] = {}
        self.closed = False

    def now(self) -> float:
        return self.clock.seconds()

    def accept(self, message: NewMessage) -> str:
        return tables.insert(self.connection, message, self.now())

    def _given(self, read: tuple[list[Delivery], list[int]]) -> list[Delivery]:
        self.taken.update((one.number, one.destination) for one in read[0])
        return read[0]

    async def take(self, limit: int, skip: Collection[str] = frozenset()) -> list[Delivery]:
        return self._given(tables.take(self.connection, self.now(), limit, skip, self.taken))

    async def overdue(self, age: float, warned: bool, limit: int, among: Collection[str]) -> list[Delivery]:
        return self._given(tables.overdue(self.connection, self.now() - age, warned, limit, among, self.taken))

    async def content(self, delivery: Delivery) -> bytes | None:
        if delivery.id in self.damaged:
            raise self.damaged[delivery.id]
        return delivery.content if tables.is_there(self.connection, delivery) else None

    async def settle(
        self,
        delivery: Delivery,
        outcomes: Mapping[int, Outcome],
        due: float,
        notices: Sequence[NewMessage] = (),
        warned: bool = False,
    ) -> None:
        if self.failing:
            raise self.failing.pop(0)
        del self.taken[delivery.number]
        if tables.settle(self.connection, delivery, outcomes, due, warned)[0]:
            for notice in notices:
                tables.insert(self.connection, notice, self.now())

    async def hold(self, delivery: Delivery) -> None:
        self.connection.execute("UPDATE deliveries SET due = ? WHERE number = ?", (tables.HELD, delivery.number))
        del self.taken[delivery.number]

    def give_back(self, delivery: Delivery) -> None:
        self.taken.pop(delivery.number, None)

    def usage(self) -> Usage:
        return tables.usage(self.connection, self.now())

    def close(self) -> None:
        self.closed = True

    def waiting(self) -> list[tuple[str, str]]:
        """Sender and recipient of all that is not settled, dead letters aside."""
        return self.connection.execute(
            "SELECT sender, address FROM recipients JOIN deliveries ON delivery = deliveries.number "
            "JOIN messages ON message = messages.number WHERE due < ? ORDER BY messages.number, position",
            (tables.DEAD,),
        ).fetchall()

    def dead(self) -> list[str]:
        """The dead letters' recipients."""
        return [
            address
            for (address,) in self.connection.execute(
                "SELECT address FROM recipients JOIN deliveries ON delivery = deliveries.number WHERE due = ?",
                (tables.DEAD,),
            )
        ]
