"""``twisted-smtpd queue``: what it prints, and what it does to a queue that a server uses."""

from __future__ import annotations

import io
import os
import sqlite3
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tests.queue.test_disk import LARGE, LATER, NO, QueueCase, message, outcomes
from tests.support.queues import MemoryQueue
from twisted_smtpd.__main__ import main
from twisted_smtpd.queue import upkeep
from twisted_smtpd.queue.command import _change
from twisted_smtpd.queue.command import main as command_main
from twisted_smtpd.queue.consumer import Consumer
from twisted_smtpd.queue.delivery import Deliverer
from twisted_smtpd.queue.disk import body_path
from twisted_smtpd.queue.schedule import Schedule


def run(*words: str) -> tuple[Any, str]:
    """Run ``twisted-smtpd queue``.

    :returns: its exit status or its error, and what it printed.
    """
    out, status = io.StringIO(), None
    with redirect_stdout(out), redirect_stderr(io.StringIO()):
        try:
            main(["queue", *words])
        except SystemExit as error:
            status = error.code
    return status, out.getvalue()


class CommandTests(QueueCase):
    def words(self, verb: str, *more: str) -> str:
        status, text = run(verb, self.folder, *more)
        self.assertIsNone(status)
        return text

    def error(self, *words: str) -> str:
        status, _ = run(*words)
        self.assertIsInstance(status, str)
        self.assertNotIn("\n", status)
        return str(status)

    async def test_list(self) -> None:
        self.assertEqual(self.words("list"), "0 messages, 0 B\n")
        first = await self.queue.accept(message("bart@b.example", "lisa@b.example"))
        second = await self.queue.accept(message(content=LARGE, sender=""))
        delivery, _ = await self.queue.take(10)
        await self.queue.settle(delivery, outcomes(delivery, "later", LATER), 4e9)
        lines = self.words("list").splitlines()
        self.assertTrue(lines[0].startswith(f"{first}  22 B  "), lines)
        self.assertTrue(lines[0].endswith(" d old  from <anne@a.example>"), lines)
        self.assertRegex(lines[1], r"^    deferred, 1 attempt, next in [0-9]+ d  <bart@b.example>$")
        self.assertEqual(lines[2], "        451 4.3.0 later")
        self.assertTrue(lines[5].startswith(f"{second}  64.0 KiB  "), lines)
        self.assertEqual(lines[6:], ["    queued, 0 attempts, next now  <bart@b.example>", "2 messages, 64.0 KiB"])

    async def test_show(self) -> None:
        ids = [await self.queue.accept(message(content=b"Subject: hi\r\n\r\n" + end)) for end in (b"small", LARGE)]
        for id, end in zip(ids, ("small", LARGE.decode()), strict=True):
            shown = self.words("show", id.lower())
            self.assertIn(f"Message {id}, ", shown)
            self.assertIn("From <anne@a.example>\nTo <bart@b.example>: queued, 0 attempts, next now\n", shown)
            self.assertIn("Client 192.0.2.1, no name\n", shown)
            self.assertTrue(shown.endswith("\n\nSubject: hi\n\n"))
            self.assertTrue(self.words("show", "--content", id).endswith(f"\n\nSubject: hi\n\n{end}\n"))

    async def test_nothing_that_a_client_has_chosen_ends_a_line(self) -> None:
        await self.queue.accept(message("x\n\x1b[2J@b.example", sender="y\r\n@a.example"))
        for text in (self.words("list"), self.words("show", "--all")):
            self.assertIn("x\\x0a\\x1b[2J@b.example", text)
            self.assertNotIn("\x1b", text)

    async def test_hold_and_retry(self) -> None:
        id = await self.queue.accept(message())
        self.assertEqual(self.words("hold", id), "1 message held\n")
        self.assertEqual(await self.queue.take(10), [])
        self.assertEqual(self.words("list", "--held").count(id), 1)
        self.assertEqual(self.words("flush"), "0 messages due\n")
        self.assertEqual(await self.queue.take(10), [])
        self.assertEqual(self.words("retry", id), "1 message due\n")
        self.time = 4e9
        self.assertEqual((await self.one()).id, id)
        self.assertEqual((await self.queue.usage()).asked, 1)

    async def test_a_dead_letter_is_tried_again(self) -> None:
        id = await self.queue.accept(message())
        await self.queue.settle(delivery := await self.one(), outcomes(delivery, "dead", NO), 0.0)
        self.assertIn("    dead  <bart@b.example>\n        550 5.1.1 no such user\n", self.words("list", "--dead"))
        self.assertEqual(self.words("retry", "--dead"), "1 message due\n")
        self.time = 4e9
        self.assertEqual((await self.one()).id, id)

    async def test_flush(self) -> None:
        await self.queue.accept(message())
        await self.queue.settle(delivery := await self.one(), outcomes(delivery, "later", LATER), 4e9)
        self.assertEqual(self.words("flush"), "1 message due\n")
        self.time = 3e9
        self.assertEqual((await self.one()).id, delivery.id)

    async def test_delete(self) -> None:
        id = await self.queue.accept(message(content=LARGE))
        kept = await self.queue.accept(message("a@x.example", "b@y.example"))
        self.assertEqual(self.words("delete", id), "1 message deleted\n")
        self.assertFalse(os.path.exists(body_path(self.folder, id)))
        self.assertEqual({one.id for one in await self.queue.take(10)}, {kept})
        self.assertEqual(self.words("delete", "--all"), "1 message deleted\n")
        for table in ("messages", "bodies", "deliveries", "recipients"):
            self.assertEqual(self.rows(table), [], table)
        self.assertEqual((await self.queue.usage()).messages, 0)

    async def test_many_are_changed_in_several_transactions(self) -> None:
        self.patch(upkeep, "CHUNK", 3)
        for _ in range(8):
            await self.queue.accept(message())
        self.assertEqual(self.words("hold", "--all"), "8 messages held\n")
        self.assertEqual(self.words("delete", "--held"), "8 messages deleted\n")

    async def test_mistakes_are_one_line(self) -> None:
        for words, text in (
            (("list", f"{self.folder}/nowhere"), f"there is no queue in {self.folder}/nowhere"),
            (("show", self.folder, "4711"), "there is no message 4711"),
            (("delete", self.folder), "delete: of which messages?  Give ids, --all, --held or --dead"),
            (("hold", self.folder, "4711", "--all"), "hold: give ids, or --all"),
            (("flush", self.folder, "4711"), "flush is for all messages: retry takes ids"),
        ):
            self.assertEqual(self.error(*words), f"twisted-smtpd queue: {text}")

    async def test_a_database_that_is_busy_or_damaged_is_one_line(self) -> None:
        await self.queue.accept(message())
        self.patch(sqlite3, "connect", lambda *arguments, connect=sqlite3.connect, **options: connect(
            *arguments, **{**options, "timeout": 0.01}
        ))  # fmt: skip
        with sqlite3.connect(os.path.join(self.folder, "queue.db")) as other:
            other.execute("BEGIN IMMEDIATE")
            self.assertIn("database is locked", self.error("delete", self.folder, "--all"))
            other.execute("ROLLBACK")
        other.close()
        await self.queue.close()
        with open(os.path.join(self.folder, "queue.db"), "wb") as file:
            file.write(b"x" * 9999)
        self.assertIn("is damaged or no SQLite database", self.error("list", self.folder))


class Closed(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


class PipeTests(QueueCase):
    def test_a_reader_that_has_seen_enough_is_no_error(self) -> None:
        with redirect_stdout(Closed()):
            self.assertRaises(BrokenPipeError, command_main, ["list", self.folder])


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class ProgressTests(QueueCase):
    def test_a_bar_on_a_terminal_only_and_for_many_only(self) -> None:
        for stream, total, shown in ((Terminal(), 2000, True), (Terminal(), 999, False), (io.StringIO(), 2000, False)):
            with redirect_stdout(io.StringIO()), redirect_stderr(stream):
                _change(iter([total // 2, total - total // 2]), total, "held")
            self.assertEqual(stream.getvalue().endswith(f"[{'#' * 30}] 2,000 of 2,000\n"), shown)
            self.assertEqual(bool(stream.getvalue()), shown)


class AskedTests(QueueCase):
    def test_a_destination_that_could_not_be_reached_is_tried_when_a_person_asks(self) -> None:
        clock, seen = Clock(), []

        class Down:
            one_next_host = True

            def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
                seen.append(envelope.queue_id)
                return "451 4.4.1 The next host can't be reached"

        queue = MemoryQueue(clock)
        queue.accept(message())
        consumer = Consumer(Down(), "mx.example", "test", timeout=9, clock=clock, loop=None)
        deliverer = Deliverer(queue, consumer, Schedule(first=1000), clock=clock)
        deliverer.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(deliverer.stop()))
        clock.pump([1] * 10)
        self.assertEqual(len(seen), 1)
        list(upkeep.retry_all(queue.connection, clock.seconds()))
        clock.pump([1] * 3)
        self.assertEqual(len(seen), 2)
