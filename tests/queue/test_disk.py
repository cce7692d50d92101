"""The queue on the disk: what it was given is there after a crash, and nothing else."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from twisted_smtpd.queue import disk, tables
from twisted_smtpd.queue.disk import SMALL, DamagedMessage, DiskQueue, body_path
from twisted_smtpd.queue.entries import Delivery, NewMessage, Outcome, QueueFull, domain_of
from twisted_smtpd.queue.interfaces import IQueue
from twisted_smtpd.runtime.database import DatabaseInUse
from twisted_smtpd.session import Recipient
from twisted_smtpd.wire.replies import Reply

OK, NO, LATER = Reply(250, None, ("ok",)), Reply(550, "5.1.1", ("no such user",)), Reply(451, "4.3.0", ("later",))
LARGE = b"x" * (SMALL + 1)


def message(
    *recipients: str, content: bytes = b"Subject: hi\r\n\r\nhello\r\n", sender: str = "anne@a.example"
) -> NewMessage:
    recipients = recipients or ("bart@b.example",)
    return NewMessage(
        sender,
        [Recipient(one, ["NOTIFY=NEVER"], {"NOTIFY": "NEVER"}) for one in recipients],
        content,
        {"utf8": False, "peer": ["192.0.2.1", 25]},
        [domain_of(one) for one in recipients],
    )


def outcomes(delivery: Delivery, kind: str, reply: Reply = OK) -> dict[int, Outcome]:
    return {position: Outcome(kind, reply) for position in delivery.recipients}


class QueueCase(TestCase):
    """A queue in a folder of the test's own.

    :ivar time: the queue's time.
    """

    def setUp(self) -> None:
        self.folder = os.path.abspath(self.mktemp())
        self.time = 1_000_000.0
        self.queue = self.open()

    def open(self, **options: Any) -> DiskQueue:
        queue = DiskQueue(self.folder, seconds=lambda: self.time, **options)
        self.addCleanup(queue.close)
        return queue

    async def again(self) -> DiskQueue:
        """The queue after another start."""
        await self.queue.close()
        self.queue = self.open()
        await self.queue.start()
        return self.queue

    async def one(self) -> Delivery:
        (delivery,) = await self.queue.take(10)
        return delivery

    def rows(self, table: str) -> list[Any]:
        with sqlite3.connect(os.path.join(self.folder, "queue.db")) as connection:
            return connection.execute(f"SELECT * FROM {table}").fetchall()


class AcceptTests(QueueCase):
    def test_interface(self) -> None:
        self.assertTrue(verifyObject(IQueue, self.queue))

    async def test_small_and_large_messages_are_there_after_another_start(self) -> None:
        small, large = message(sender=""), message(content=LARGE)
        ids = [await self.queue.accept(one) for one in (small, large)]
        self.assertEqual(os.listdir(os.path.join(self.folder, "bodies")), [ids[1]])
        queue = await self.again()
        found = await queue.take(10)
        self.assertEqual([one.id for one in found], ids)
        self.assertEqual([await queue.content(one) for one in found], [small.content, LARGE])
        self.assertEqual((found[0].sender, found[0].facts, found[0].size), ("", small.facts, len(small.content)))
        self.assertEqual(found[0].recipients, {0: small.recipients[0]})

    async def test_recipients_are_delivered_by_destination(self) -> None:
        await self.queue.accept(message("a@one.example", "b@two.example", "c@ONE.example"))
        found = {one.destination: [*one.recipients] for one in await self.queue.take(10)}
        self.assertEqual(found, {"one.example": [0, 2], "two.example": [1]})

    async def test_ids_are_never_the_same(self) -> None:
        ids = await gatherResults([_deferred(self.queue.accept(message())) for _ in range(200)])
        self.assertEqual(len(set(ids)), 200)

    async def test_bounds(self) -> None:
        await self.queue.close()
        self.queue = self.open(max_messages=2, max_octets=SMALL + 100)
        await self.queue.accept(message())
        for content in (LARGE * 2, b"x" * SMALL + LARGE[:99]):
            error = await self.assertFailure(_deferred(self.queue.accept(message(content=content))), QueueFull)
            self.assertEqual(str(error), f"the queue has its {SMALL + 100:,} octets")
        await self.queue.accept(message())
        error = await self.assertFailure(_deferred(self.queue.accept(message())), QueueFull)
        self.assertEqual(str(error), "the queue has its 2 messages")
        self.assertEqual(os.listdir(os.path.join(self.folder, "bodies")), [])
        await self.queue.settle(found := (await self.queue.take(1))[0], outcomes(found, "delivered"), 0.0)
        await self.queue.accept(message())

    async def test_all_is_synchronised_before_the_answer_and_in_this_order(self) -> None:
        events: list[str] = []
        self.patch(os, "fsync", lambda descriptor, fsync=os.fsync: (events.append("file"), fsync(descriptor)))
        self.patch(disk, "sync_folder", lambda path: events.append("folder"))
        database = self.queue._database

        def watch(connection: sqlite3.Connection) -> Any:
            connection.set_trace_callback(lambda text: events.append(text) if text == "COMMIT" else None)
            return connection.execute("PRAGMA synchronous").fetchone()

        # FULL: SQLite synchronises its log before COMMIT returns.
        self.assertEqual(await database.write(watch), (2,))
        for content, wanted in ((b"small", ["COMMIT"]), (LARGE, ["file", "folder", "COMMIT"])):
            events.clear()
            await self.queue.accept(message(content=content))
            self.assertEqual(events, wanted)

    async def test_a_disk_that_is_nearly_full(self) -> None:
        await self.queue.close()
        self.queue = self.open(min_free=10**18)
        error = await self.assertFailure(_deferred(self.queue.accept(message())), QueueFull)
        self.assertEqual(str(error), f"the disk has less than {10**18:,} octets free")

    async def test_a_large_message_that_can_not_be_written_leaves_nothing(self) -> None:
        def write(connection: Any) -> None:
            raise OSError("no")

        self.patch(self.queue, "_insert", lambda *arguments: write(None))
        await self.assertFailure(_deferred(self.queue.accept(message(content=LARGE))), OSError)
        self.assertEqual(os.listdir(os.path.join(self.folder, "bodies")), [])

    async def test_a_file_without_a_message_is_removed_at_the_start(self) -> None:
        kept = await self.queue.accept(message(content=LARGE))
        for number in range(3):
            Path(body_path(self.folder, f"STRAY{number}")).write_bytes(b"half")
        await self.again()
        self.assertEqual(os.listdir(os.path.join(self.folder, "bodies")), [kept])

    async def test_a_second_queue_in_the_folder_is_refused(self) -> None:
        error = self.assertRaises(DatabaseInUse, DiskQueue, self.folder)
        self.assertEqual(str(error), f"{self.folder}/queue.db is in use by process {os.getpid()}")

    def test_only_the_owner_may_read_it(self) -> None:
        for path in (self.folder, os.path.join(self.folder, "bodies")):
            self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o700)

    async def test_usage(self) -> None:
        self.assertEqual((await self.queue.usage()).oldest, 0)
        await self.queue.accept(message())
        self.time += 5
        await self.queue.accept(message(content=LARGE))
        usage = await self.queue.usage()
        self.assertEqual((usage.messages, usage.octets, usage.oldest), (2, 22 + len(LARGE), 5))


class DeliveryTests(QueueCase):
    async def test_none_is_given_twice_at_a_time(self) -> None:
        await self.queue.accept(message())
        delivery = await self.one()
        self.assertEqual(await self.queue.take(10), [])
        self.queue.give_back(delivery)
        self.assertEqual(await self.one(), delivery)

    async def test_one_that_was_not_settled_is_given_again_after_a_start(self) -> None:
        await self.queue.accept(message())
        delivery = await self.one()
        await self.again()
        self.assertEqual((await self.one()).id, delivery.id)

    async def test_delivered_leaves_nothing(self) -> None:
        for content in (b"small", LARGE):
            await self.queue.accept(message("a@x.example", "b@y.example", content=content))
            for delivery in await self.queue.take(10):
                await self.queue.settle(delivery, outcomes(delivery, "delivered"), 0.0)
        for table in ("messages", "bodies", "deliveries", "recipients"):
            self.assertEqual(self.rows(table), [], table)
        self.assertEqual(os.listdir(os.path.join(self.folder, "bodies")), [])
        self.assertEqual((await self.queue.usage()).octets, 0)

    async def test_later_is_due_later_and_at_once_after_a_start(self) -> None:
        await self.queue.accept(message())
        delivery = await self.one()
        await self.queue.settle(delivery, outcomes(delivery, "later", LATER), self.time + 10, warned=True)
        self.assertEqual(await self.queue.take(10), [])
        self.time += 10
        delivery = await self.one()
        self.assertEqual((delivery.attempts, delivery.warned, delivery.last_reply), (1, True, "451 4.3.0 later"))
        await self.queue.settle(delivery, outcomes(delivery, "later", LATER), self.time + 3600)
        await self.again()
        self.assertEqual((await self.one()).attempts, 2)

    async def test_each_recipient_has_its_own_outcome(self) -> None:
        await self.queue.accept(message(*(f"{name}@b.example" for name in "abcd")))
        delivery = await self.one()
        kinds = ("delivered", "later", "bounced", "dead")
        given = {number: Outcome(kind, LATER) for number, kind in enumerate(kinds)}
        await self.queue.settle(delivery, given, self.time, [message("anne@a.example", sender="")])
        notice, rest = await self.queue.take(10)
        self.assertEqual((notice.sender, [*rest.recipients]), ("", [1]))
        self.assertEqual([row[1] for row in self.rows("recipients") if row[0] not in (notice.number, rest.number)], [3])
        await self.queue.settle(rest, outcomes(rest, "dead", NO), 0.0)
        await self.again()
        self.assertEqual([one.id for one in await self.queue.take(10)], [notice.id])

    async def test_no_notice_for_a_message_that_was_deleted_meanwhile(self) -> None:
        await self.queue.accept(message(content=LARGE))
        delivery = await self.one()
        with sqlite3.connect(os.path.join(self.folder, "queue.db")) as connection:
            connection.execute("DELETE FROM deliveries")
        os.unlink(body_path(self.folder, delivery.id))
        self.assertIsNone(await self.queue.content(delivery))
        await self.queue.settle(delivery, outcomes(delivery, "bounced", NO), 0.0, [message(sender="")])
        self.assertEqual(await self.queue.take(10), [])

    async def test_destinations_take_turns(self) -> None:
        for number in range(50):
            await self.queue.accept(message(f"{number}@much.example"))
        self.time += 1
        for number in range(3):
            await self.queue.accept(message(f"{number}@little.example"))
        first = await self.queue.take(8)
        self.assertEqual([one.destination for one in first], ["much.example"] * 4 + ["little.example"] * 3)
        self.assertEqual({one.destination for one in await self.queue.take(8)}, {"much.example"})
        self.assertEqual(await self.queue.take(8, {"much.example"}), [])

    async def test_hold(self) -> None:
        await self.queue.accept(message())
        await self.queue.hold(await self.one())
        await self.again()
        self.assertEqual(await self.queue.take(10), [])
        self.assertEqual(await self.queue.overdue(0, True, 10, {"b.example"}), [])

    async def test_overdue(self) -> None:
        for recipient in ("a@x.example", "b@y.example"):
            await self.queue.accept(message(recipient))
        for delivery in await self.queue.take(10):
            warned = delivery.destination == "x.example"
            await self.queue.settle(delivery, outcomes(delivery, "later", LATER), self.time + 3600, warned=warned)
        self.time += 100

        async def found(age: float, warned: bool, *among: str) -> list[str]:
            taken = await self.queue.overdue(age, warned, 10, among)
            for one in taken:
                self.queue.give_back(one)
            return [one.destination for one in taken]

        self.assertEqual(await found(101, True, "x.example", "y.example"), [])
        self.assertEqual(await found(100, True, "x.example", "y.example"), ["x.example", "y.example"])
        self.assertEqual(await found(100, True, "x.example"), ["x.example"])
        self.assertEqual(await found(100, False, "x.example", "y.example"), ["y.example"])

    async def test_dead_letters_are_bounded(self) -> None:
        self.patch(tables, "DEAD_KEPT", 3)
        for number in range(5):
            await self.queue.accept(message(content=LARGE, sender=str(number)))
            delivery = await self.one()
            await self.queue.settle(delivery, outcomes(delivery, "dead", NO), 0.0)
        self.assertEqual([row[3] for row in self.rows("messages")], ["2", "3", "4"])
        self.assertEqual(len(os.listdir(os.path.join(self.folder, "bodies"))), 3)

    async def test_a_clock_that_was_set_back_makes_no_message_young_for_ever(self) -> None:
        await self.queue.accept(message())
        self.time -= 10 * 365 * 86400
        await self.again()
        self.assertEqual((await self.one()).arrived, self.time)


class DamageTests(QueueCase):
    async def damaged(self, content: bytes, break_it: Any) -> Sequence[str]:
        good = await self.queue.accept(message(content=content))
        bad = await self.queue.accept(message(content=content))
        break_it(bad)
        read = []
        for delivery in await self.queue.take(10):
            try:
                await self.queue.content(delivery)
                read.append(delivery.id)
            except DamagedMessage as error:
                self.assertIn(bad, str(error))
        self.assertEqual(read, [good])
        return read

    def execute(self, statement: str, *values: Any) -> None:
        with sqlite3.connect(os.path.join(self.folder, "queue.db")) as connection:
            connection.execute(statement, values)

    async def test_a_file_that_is_missing_cut_off_or_changed(self) -> None:
        def cut(id: str) -> None:
            os.truncate(body_path(self.folder, id), 100)

        def change(id: str) -> None:
            with open(body_path(self.folder, id), "r+b") as file:
                file.write(b"y")

        for break_it in (cut, change, lambda id: os.unlink(body_path(self.folder, id))):
            await self.damaged(LARGE, break_it)

    async def test_a_body_in_the_database_that_was_changed(self) -> None:
        await self.damaged(b"small", lambda id: self.execute(
            "UPDATE bodies SET content = X'00' WHERE message = (SELECT number FROM messages WHERE id = ?)", id
        ))  # fmt: skip

    async def test_an_envelope_that_can_not_be_read_does_not_stop_the_others(self) -> None:
        bad, good = [await self.queue.accept(message()) for _ in range(2)]
        self.execute("UPDATE messages SET facts = '{' WHERE id = ?", bad)
        self.assertEqual([one.id for one in await self.queue.take(10)], [good])
        self.assertEqual(await self.queue.take(10), [])


def _deferred(coroutine: Any) -> Deferred[Any]:
    return Deferred.fromCoroutine(coroutine)
