"""The queue on this machine's disk: an SQLite database, and a file for each large message."""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from twisted_smtpd.queue import tables
from twisted_smtpd.queue.entries import Delivery, NewMessage, Outcome, QueueFull, Usage, new_id
from twisted_smtpd.queue.interfaces import IQueue
from twisted_smtpd.runtime.database import Database, sync_folder
from twisted_smtpd.runtime.reactors import in_thread, wait_for
from twisted_smtpd.runtime.steady import steady_seconds

__all__ = ["DATABASE", "MIN_FREE", "DamagedMessage", "DiskQueue", "body_path"]

log = Logger()

#: The database's name in the folder of a queue.
DATABASE = "queue.db"
_BODIES = "bodies"
#: Octets above which a message is stored in a file of its own.
SMALL = 2**16
#: Octets that stay free on the disk.
MIN_FREE = 32 * 2**20
# A listing of files that is compared with the database at once.
_CHUNK = 500


class DamagedMessage(Exception):
    """A message is not what was accepted, or can't be read; the text says what is wrong."""


def body_path(folder: str, id: str) -> str:
    """Where a large message is.

    :param folder: of the queue.
    :param id: the message's.
    """
    return os.path.join(folder, _BODIES, id)


def _free(path: str) -> float:
    """The octets that are free on a disk."""
    if not hasattr(os, "statvfs"):
        return math.inf
    disk = os.statvfs(path)
    return disk.f_bavail * disk.f_frsize


@implementer(IQueue)
class DiskQueue:
    """A queue in a folder.

    A small message is in the database, with its envelope; a large one is in a file, which is synchronised, with its
    folder, before the envelope is committed.  So what is in the database is whole, and a file that it does not name is
    what a crash has left: it is removed at the next start.

    :param folder: the folder; it is created with mode 0700, in a folder that exists.
    :param max_messages: how many messages it holds at most.
    :param max_octets: the octets that they have together at most.
    :param min_free: octets that have to stay free on the disk: what is queued could not be settled on a full one.
    :param seconds: gives the time in seconds since 1970; one that does not jump by default.
    :raises DatabaseInUse: if another process uses the folder.
    :raises DatabaseError: if its database can't be used.
    :raises OSError: if the folder can't be created or read.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        max_messages: int = 1_000_000,
        max_octets: int = 10 * 2**30,
        min_free: int = MIN_FREE,
        seconds: Callable[[], float] = steady_seconds,
    ) -> None:
        # A daemon changes its working directory; the queue stays where it was meant to be.
        self.folder = os.path.abspath(os.path.expanduser(folder))
        self._max_messages, self._max_octets, self._min_free = max_messages, max_octets, min_free
        self._seconds = seconds
        for path in (self.folder, os.path.join(self.folder, _BODIES)):
            with suppress(FileExistsError):
                os.mkdir(path, 0o700)
        path = os.path.join(self.folder, DATABASE)
        self._database = Database(path, tables.SCHEMA, before_commit=self._sync_bodies)
        # Whether there are files whose names are not synchronised; of interest to the writer's thread only.
        self._new_files = False
        # Whether the last message found no room: then the next one's file is not written to find out.
        self._full = False
        # Deliveries on their way, with their destinations; those that can't be read stay there.
        self._taken: dict[int, str] = {}

    def __repr__(self) -> str:
        return f"<DiskQueue {self.folder}>"

    def now(self) -> float:
        """The queue's time; see :class:`IQueue`."""
        return self._seconds()

    async def start(self) -> None:
        """Make all that is not held due, and remove what a crash has left."""
        now = self.now()
        await self._database.write(lambda connection: tables.start(connection, now))
        names = await wait_for(in_thread(self._names))
        for begin in range(0, len(names), _CHUNK):
            await self._remove_strays(names[begin : begin + _CHUNK])

    def _names(self) -> list[str]:
        return os.listdir(os.path.join(self.folder, _BODIES))

    async def _remove_strays(self, names: Sequence[str]) -> None:
        marks = ", ".join("?" * len(names))
        known = await self._database.read(
            lambda connection: {
                name for (name,) in connection.execute(f"SELECT id FROM messages WHERE id IN ({marks})", tuple(names))
            }
        )
        for name in names:
            if name not in known:
                await wait_for(in_thread(self._unlink, name))

    def _unlink(self, name: str) -> None:
        with suppress(FileNotFoundError):
            os.unlink(body_path(self.folder, name))

    # -- messages come in ----------------------------------------------------------------------------------------------

    async def accept(self, message: NewMessage) -> str:
        """Make a message durable; see :class:`IQueue`."""
        now = self.now()
        if len(message.content) <= SMALL:
            return await self._database.write(lambda connection: self._insert(connection, message, now))
        if self._full:
            await self._database.read(lambda connection: self._check_room(connection, message))
        id = new_id(now)
        try:
            await wait_for(in_thread(self._store, id, message.content))
            return await self._database.write(lambda connection: self._insert(connection, message, now, id))
        except Exception:
            await wait_for(in_thread(self._unlink, id))
            raise

    def _check_room(self, connection: Any, message: NewMessage) -> None:
        self._full = True
        size = len(message.content)
        tables.check_room(connection, size, self._max_messages, self._max_octets)
        # Twice: it is in the log of the database, too, for a while.
        if self._min_free and _free(self.folder) < self._min_free + 2 * size:
            raise QueueFull(f"the disk has less than {self._min_free:,} octets free")
        self._full = False

    def _insert(self, connection: Any, message: NewMessage, now: float, id: str | None = None) -> str:
        self._check_room(connection, message)
        self._new_files |= id is not None
        return tables.insert(connection, message, now, id)

    def _sync_bodies(self) -> None:
        """Synchronise the names of new files: once for all that share a commit."""
        if self._new_files:
            sync_folder(os.path.join(self.folder, _BODIES))
            self._new_files = False

    def _store(self, id: str, content: bytes) -> None:
        path = body_path(self.folder, id)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o600)
        with open(descriptor, "wb", buffering=0) as file:
            # A write may end early, at a full disk for instance.
            left = memoryview(content)
            while left:
                left = left[file.write(left) :]
            os.fsync(descriptor)

    # -- and go out ----------------------------------------------------------------------------------------------------

    async def take(self, limit: int, skip: Collection[str] = frozenset()) -> list[Delivery]:
        """Give deliveries that are due; see :class:`IQueue`."""
        now, taken = self.now(), dict(self._taken)
        return self._given(await self._database.read(lambda one: tables.take(one, now, limit, skip, taken)))

    async def overdue(self, age: float, warned: bool, limit: int, among: Collection[str]) -> list[Delivery]:
        """Give deliveries of old messages; see :class:`IQueue`."""
        arrived, taken = self.now() - age, frozenset(self._taken)
        return self._given(
            await self._database.read(lambda one: tables.overdue(one, arrived, warned, limit, among, taken))
        )

    def _given(self, read: tuple[list[Delivery], list[int]]) -> list[Delivery]:
        found, unreadable = read
        for number in unreadable:
            self._taken.setdefault(number, "")
            log.error("{queue}: delivery {number} can't be read, it stays where it is", queue=self, number=number)
        # Asked twice at the same time, the same ones would be found.
        found = [delivery for delivery in found if delivery.number not in self._taken]
        self._taken.update((delivery.number, delivery.destination) for delivery in found)
        return found

    async def content(self, delivery: Delivery) -> bytes | None:
        """The message of a delivery; see :class:`IQueue`.

        :raises DamagedMessage: if it is not what was accepted.
        :raises OSError: if it can't be read now.
        """
        if delivery.content is not None:
            return self._checked(delivery, delivery.content)
        try:
            return await wait_for(in_thread(self._read, delivery))  # type: ignore[no-any-return]
        except FileNotFoundError:
            if await self._database.read(lambda connection: tables.is_there(connection, delivery)):
                raise DamagedMessage(f"{body_path(self.folder, delivery.id)} is missing") from None
            return None

    def _checked(self, delivery: Delivery, content: bytes) -> bytes:
        if len(content) != delivery.size or zlib.crc32(content) != delivery.checksum:
            raise DamagedMessage(f"the content of {delivery.id} is damaged")
        return content

    def _read(self, delivery: Delivery) -> bytes:
        with open(body_path(self.folder, delivery.id), "rb") as file:
            return self._checked(delivery, file.read())

    async def settle(
        self,
        delivery: Delivery,
        outcomes: Mapping[int, Outcome],
        due: float,
        notices: Sequence[NewMessage] = (),
        warned: bool = False,
    ) -> None:
        """Note what has become of a delivery's recipients; see :class:`IQueue`."""
        now = self.now()

        def note(connection: Any) -> list[str]:
            there, gone = tables.settle(connection, delivery, outcomes, due, warned)
            if there:
                for notice in notices:
                    tables.insert(connection, notice, now)
            files = [delivery.id] if gone and delivery.content is None else []
            if any(outcome.kind == "dead" for outcome in outcomes.values()):
                files += tables.prune(connection)
            return files

        files = await self._database.write(note)
        self._taken.pop(delivery.number, None)
        for name in files:
            await wait_for(in_thread(self._unlink, name))

    async def hold(self, delivery: Delivery) -> None:
        """End a delivery, and hold it until a person looks after it."""
        try:
            await self._database.write(
                lambda one: (
                    one.execute(
                        "UPDATE deliveries SET due = ? WHERE number = ?", (tables.HELD, delivery.number)
                    ).rowcount
                )
            )
        finally:
            self._taken.pop(delivery.number, None)

    def give_back(self, delivery: Delivery) -> None:
        """End a delivery without an outcome; see :class:`IQueue`."""
        self._taken.pop(delivery.number, None)

    def usage(self) -> Deferred[Usage]:
        """How full the queue is; see :class:`IQueue`."""
        now = self.now()
        return self._database.read(lambda connection: tables.usage(connection, now))

    def close(self) -> Deferred[None]:
        """Give up the folder; see :class:`IQueue`."""
        return self._database.close()
