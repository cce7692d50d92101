"""The store in a file."""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
from datetime import datetime, timezone
from typing import Any

from twisted.internet.defer import gatherResults
from twisted.trial.unittest import TestCase

from tests.store.contract import StoreContract, StoreTests, new, synchronous
from twisted_smtpd.runtime.database import DatabaseClosed, DatabaseError, DatabaseInUse
from twisted_smtpd.store import Counts, Matching, NewMessage, SessionFacts
from twisted_smtpd.store.sqlite import SQLiteStore


class _SQLiteCase(StoreContract, TestCase):
    now = 1_800_000_000.0
    store: Any = None

    async def make(self, **options: Any) -> SQLiteStore:
        if "path" not in options:
            os.mkdir(folder := self.mktemp())
            options["path"] = os.path.join(folder, "store.db")
        return SQLiteStore(**options, seconds=lambda: self.now)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    def tearDown(self) -> Any:
        return self.store and self.store.close()


class SQLiteStoreTests(StoreTests, _SQLiteCase):
    """What each store has to do."""


class FileTests(_SQLiteCase):
    @synchronous
    async def test_what_is_stored_is_there_after_a_restart(self) -> None:
        self.store = await self.make()
        await self.do("add", new("Lunch", mailboxes=("a", "b")))
        await self.do("add", new("Gone"))
        await self.do("tag", [1], ["x"])
        await self.do("mark", [1], True)
        await self.do("delete", [2])
        before = await self.do("get", 1), await self.do("summaries", Matching())
        await self.store.close()
        self.store = await self.make(path=self.store.path)
        self.assertEqual((await self.do("get", 1), await self.do("summaries", Matching())), before)
        self.assertEqual(await self.do("mailboxes"), {"a": Counts(1, 0, 0), "b": Counts(1, 0, 0)})
        # A number is not used again.
        self.assertEqual((await self.do("add", new())).id, 3)
        self.assertEqual(await self.do("restore", [2]), 1)

    @synchronous
    async def test_a_store_has_one_owner(self) -> None:
        self.store = await self.make()
        self.assertRaises(DatabaseInUse, SQLiteStore, self.store.path)

    @synchronous
    async def test_only_its_user_can_read_it(self) -> None:
        self.store = await self.make()
        self.assertEqual(stat.S_IMODE(os.stat(self.store.path).st_mode), 0o600)

    @synchronous
    async def test_a_temporary_store_goes_with_its_folder(self) -> None:
        self.store = await self.make(path=None)
        folder = os.path.dirname(self.store.path)
        self.assertEqual(stat.S_IMODE(os.stat(folder).st_mode), 0o700)
        await self.do("add", new())
        await self.store.close()
        self.assertFalse(os.path.exists(folder))

    def test_a_file_of_something_else_stays_as_it_is(self) -> None:
        os.mkdir(folder := self.mktemp())
        path = os.path.join(folder, "a.db")
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE other (x)")
        connection.close()
        self.assertRaisesRegex(DatabaseError, "another program", SQLiteStore, path)
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA user_version = 99")
        connection.close()
        self.assertRaisesRegex(DatabaseError, "later version", SQLiteStore, path)
        with open(path, "wb") as file:
            file.write(b"no database" * 1000)
        self.assertRaisesRegex(DatabaseError, "damaged", SQLiteStore, path)
        self.assertRaises(OSError, SQLiteStore, os.path.join(folder, "missing", "a.db"))

    @synchronous
    async def test_old_messages_go(self) -> None:
        self.store = await self.make(max_age=3600)
        heard: list[Any] = []
        self.store.watch_changes(heard.append)
        for minutes in (90, 30):
            received = datetime.fromtimestamp(self.now - minutes * 60, timezone.utc)
            await self.do("add", new("Lunch", received=received))
        await self.do("purge")
        self.assertEqual((await self.found(), await self.found("lunch"), self.store.dropped), ([2], [2], 1))
        self.assertEqual([(change.kind, change.ids) for change in heard[2:]], [("deleted", (1,))])

    @synchronous
    async def test_many_at_the_same_time(self) -> None:
        self.store = await self.make(max_messages=700)
        added = await gatherResults([self.store.add(new(f"Number {n}")) for n in range(1500)])
        self.assertEqual([one.id for one in added], list(range(1, 1501)))
        self.assertLessEqual(await self.do("count", Matching()), 770)
        await self.do("purge")
        self.assertEqual(await self.do("ids", Matching()), list(range(801, 1501)))
        self.assertEqual((await self.do("counts"), self.store.dropped), (Counts(700, 700, 0), 800))
        self.assertEqual(await self.do("mark", range(1, 1501), True), 700)
        self.assertEqual(await self.do("delete", range(-5, 10**20, 10**17)), 0)
        self.assertEqual(await self.do("delete", range(1501)), 700)
        self.assertEqual((await self.do("counts"), await self.do("mailboxes")), (Counts(), {}))

    @synchronous
    async def test_hostile_texts(self) -> None:
        self.store = await self.make()
        half = "\ud800"
        message = new(
            f"{half}".encode("utf-8", "surrogatepass").decode("latin-1"), session=half, mailboxes=(half, "\0")
        )
        await self.do("add", message)
        await self.do("tag", [1], [half, "\0", "'; DROP TABLE messages; --"])
        await self.do("keep_transcript", half, half)
        self.assertEqual(await self.found(half), [])
        self.assertEqual(await self.found(mailbox=half), [1])
        self.assertEqual(await self.found(session=half), [1])
        self.assertEqual(await self.found(after=-(10**30)), [1])
        self.assertEqual(await self.found(after=10**30), [])
        self.assertEqual(await self.found(before=10**30), [1])
        self.assertEqual(await self.do("get", 10**30), None)

    @synchronous
    async def test_nothing_is_left_of_a_mailbox_without_messages(self) -> None:
        self.store = await self.make()
        for mailbox in ("a", "b"):
            await self.do("add", new(mailbox=mailbox))
        await self.do("delete", [1])
        await self.do("purge")
        await self.do("restore", [1])
        self.assertEqual(list(await self.do("mailboxes")), ["a", "b"])
        await self.do("delete", [1])
        self.pass_time(601)
        await self.do("purge")
        rows = await self.store._database.read(lambda c: c.execute("SELECT mailbox FROM counts").fetchall())
        self.assertEqual(rows, [("b",)])


class ArrivalTests(_SQLiteCase):
    @synchronous
    async def test_one_that_can_not_be_written_does_not_undo_the_others(self) -> None:
        self.store = await self.make()
        wrong = NewMessage(_Strange(), "", (), (), SessionFacts("1"))
        adding = [self.store.add(one) for one in (new("One"), wrong, new("Two"))]
        results = [await one.addErrback(lambda failure: failure.value) for one in adding]
        self.assertIsInstance(results[1], sqlite3.Error)
        self.assertEqual([stored.message.subject for stored in await self.do("find", Matching())], ["One", "Two"])
        self.assertEqual((await self.do("counts")).total, 2)

    @synchronous
    async def test_after_the_end_nothing_is_taken(self) -> None:
        self.store = await self.make()
        adding = [self.store.add(new()) for _ in range(3)]
        await self.store.close()
        self.assertEqual([self.successResultOf(one).id for one in adding], [1, 2, 3])
        for _ in range(2):
            self.failureResultOf(self.store.add(new()), DatabaseClosed)


class _Strange(bytes):
    """Octets that SQLite does not take."""

    def __conform__(self, protocol: object) -> object:
        return object()


class IndexTests(_SQLiteCase):
    @synchronous
    async def test_a_search_finds_what_is_not_in_the_index_yet(self) -> None:
        self.store = await self.make()
        await self.do("add", new("Lunch"))
        self.assertEqual(await self.do("tally", Matching(text="lunch")), (1, 1))
        await self.do("add", new("Lunch"))
        self.assertEqual(await self.do("tally", Matching(text="lunch")), (2, 2))
        await self.do("add", new("Lunch"))
        await self.store.close()
        self.store = await self.make(path=self.store.path)
        self.assertEqual(await self.found("lunch"), [1, 2, 3])

    @synchronous
    async def test_it_is_brought_up_to_date_when_no_more_mail_comes(self) -> None:
        self.store = await self.make()
        await self.do("add", new("Lunch"))
        for _ in range(2):
            await self.do("purge")
        self.assertEqual(self.indexed(), [1])

    @synchronous
    async def test_many_are_indexed_while_mail_comes(self) -> None:
        from twisted_smtpd.store import sqlite

        self.patch(sqlite, "MAX_NOT_INDEXED", 10)
        self.store = await self.make()
        await gatherResults([self.store.add(new("Lunch")) for _ in range(25)])
        self.assertGreaterEqual(len(self.indexed()), 18)

    @synchronous
    async def test_what_goes_before_is_never_in_it(self) -> None:
        self.store = await self.make(max_messages=3)
        await gatherResults([self.store.add(new("Lunch")) for _ in range(9)])
        self.assertEqual((await self.found("lunch"), self.indexed()), ([7, 8, 9], [7, 8, 9]))

    @synchronous
    async def test_what_goes_later_leaves_it(self) -> None:
        self.store = await self.make(max_messages=3)
        for _ in range(3):
            await self.do("add", new("Lunch"))
        self.assertEqual(await self.found("lunch"), [1, 2, 3])
        await self.do("delete", [3])
        await self.do("add", new("Dinner"))
        await self.do("add", new("Dinner"))
        self.assertEqual((await self.found("lunch"), await self.found("dinner")), ([2], [4, 5]))
        self.pass_time(601)
        await self.do("purge")
        self.assertEqual(self.indexed("lunch"), [2])

    def indexed(self, word: str = "lunch") -> list[int]:
        with sqlite3.connect(self.store.path) as connection:
            rows = connection.execute("SELECT rowid FROM words WHERE words MATCH ?", (f'"{word[:3]}"',)).fetchall()
            connection.execute("INSERT INTO words (words) VALUES ('integrity-check')")
        connection.close()
        return [id for (id,) in rows]

    @synchronous
    async def test_large_counts_take_the_word_of_the_index(self) -> None:
        from twisted_smtpd.store import sqlite

        self.patch(sqlite, "EXACT_COUNT", 2)
        self.store = await self.make()
        for body in ("lunch", "lunch", "lunch", "lun unc nch"):
            await self.do("add", new(body=body))
        self.assertEqual(await self.do("count", Matching(text="lunch")), 4)
        self.patch(sqlite, "EXACT_COUNT", 3)
        self.assertEqual(await self.do("count", Matching(text="lunch")), 3)


class FullDiskTests(_SQLiteCase):
    @synchronous
    async def test_a_full_disk_is_an_error_that_says_so_and_no_end(self) -> None:
        self.store = await self.make()
        await self.do("add", new("Before"))
        [pages] = await self.store._database.write(lambda c: c.execute("PRAGMA page_count").fetchone())
        await self.store._database.write(lambda c: c.execute(f"PRAGMA max_page_count = {pages}").fetchone())
        adding = [self.store.add(new(body="x" * size)) for size in (100_000, 50_000)]
        for one in adding:
            error = await one.addErrback(lambda failure: failure.value)
            self.assertEqual((type(error), error.errno), (OSError, errno.ENOSPC))
        await self.store._database.write(lambda c: c.execute("PRAGMA max_page_count = 100000").fetchone())
        await self.do("add", new("After"))
        self.assertEqual([one.message.subject for one in await self.do("find", Matching())], ["Before", "After"])
        self.assertEqual(await self.do("counts"), Counts(2, 2, 0))
