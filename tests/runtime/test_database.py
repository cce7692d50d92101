"""The SQLite database: shared commits, one owner, and errors that say what is wrong."""

from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import SynchronousTestCase, TestCase

from twisted_smtpd.runtime import database as module
from twisted_smtpd.runtime.database import (
    Database,
    DatabaseClosed,
    DatabaseDamaged,
    DatabaseError,
    DatabaseInUse,
    connect,
)

SCHEMA = "CREATE TABLE IF NOT EXISTS words (word TEXT PRIMARY KEY); CREATE TABLE IF NOT EXISTS bodies (body BLOB)"


def insert(word: str) -> Any:
    return lambda connection: connection.execute("INSERT INTO words VALUES (?)", (word,)).rowcount


def words(connection: sqlite3.Connection) -> list[str]:
    return [word for (word,) in connection.execute("SELECT word FROM words ORDER BY word")]


class DatabaseTests(TestCase):
    def setUp(self) -> None:
        folder = self.mktemp()
        os.mkdir(folder)
        self.path = os.path.join(folder, "with ?#% in.db")
        self.database = self.open()

    def open(self, **options: Any) -> Database:
        database = Database(self.path, SCHEMA, **options)
        self.addCleanup(database.close)
        return database

    def block(self) -> tuple[Deferred[bool], threading.Event]:
        """Keep the writer busy, so that what is asked for next has to wait.

        :returns: fires at the end of it; what ends it.
        """
        begun, go_on = threading.Event(), threading.Event()
        self.addCleanup(go_on.set)
        blocked = self.database.write(lambda _: begun.set() or go_on.wait())
        begun.wait()
        return blocked, go_on

    async def test_what_was_written_is_read_also_after_another_start(self) -> None:
        self.assertEqual(await self.database.write(insert("one")), 1)
        self.assertEqual(await self.database.read(words), ["one"])
        await self.database.close()
        self.assertEqual(await self.open(synchronous="NORMAL").read(words), ["one"])

    async def test_those_that_wait_share_a_commit(self) -> None:
        commits: list[str] = []
        await self.database.write(lambda connection: connection.set_trace_callback(commits.append))
        commits.clear()
        first, go_on = self.block()
        others = [self.database.write(insert(f"{number:03}")) for number in range(100)]
        go_on.set()
        await gatherResults([first, *others])
        self.assertEqual(len(await self.database.read(words)), 100)
        self.assertEqual(commits.count("COMMIT"), 2)

    async def test_one_that_fails_undoes_its_own_and_nothing_else(self) -> None:
        def half(connection: sqlite3.Connection) -> None:
            insert("half")(connection)
            raise LookupError("not this one")

        blocked, go_on = self.block()
        before, failing, twice, after = (
            self.database.write(one) for one in (insert("a"), half, insert("a"), insert("b"))
        )
        go_on.set()
        await blocked
        await gatherResults([before, after])
        await self.assertFailure(failing, LookupError)
        await self.assertFailure(twice, sqlite3.IntegrityError)
        self.assertEqual(await self.database.read(words), ["a", "b"])

    async def test_a_commit_that_fails_is_tried_for_each_alone(self) -> None:
        def broken(connection: sqlite3.Connection) -> None:
            # As SQLite does when the disk is full: all of it is rolled back.
            connection.execute("ROLLBACK")
            raise sqlite3.OperationalError("database or disk is full")

        blocked, go_on = self.block()
        before, failing, after = (self.database.write(one) for one in (insert("a"), broken, insert("b")))
        go_on.set()
        await blocked
        await gatherResults([before, after])
        error: OSError = await self.assertFailure(failing, OSError)
        self.assertEqual(error.errno, errno.ENOSPC)
        self.assertEqual(await self.database.read(words), ["a", "b"])

    async def test_what_is_called_before_each_commit_may_refuse_it(self) -> None:
        await self.database.close()
        seen: list[int] = []
        broken: list[OSError] = []

        def check() -> None:
            seen.append(len(words(other)))
            if broken:
                raise broken[0]

        self.database = self.open(before_commit=check)
        other = connect(self.path, any_thread=True)
        self.addCleanup(other.close)
        await self.database.write(insert("a"))
        broken.append(OSError(errno.EIO, "no"))
        await self.assertFailure(self.database.write(insert("b")), OSError)
        self.assertEqual((seen, words(other)), ([0, 1], ["a"]))

    async def test_a_full_disk(self) -> None:
        await self.database.write(insert("before"))
        await self.database.write(lambda connection: connection.execute("PRAGMA max_page_count=10").fetchall())
        large = self.database.write(
            lambda connection: connection.execute("INSERT INTO bodies VALUES (zeroblob(99999))")
        )
        small = self.database.write(insert("after"))
        error: OSError = await self.assertFailure(large, OSError)
        self.assertEqual((error.errno, error.filename), (errno.ENOSPC, self.path))
        await small
        self.assertEqual(await self.database.read(words), ["after", "before"])

    async def test_a_reader_waits_for_no_writer_and_can_not_write(self) -> None:
        await self.database.write(insert("committed"))
        go_on = threading.Event()

        def slowly(connection: sqlite3.Connection) -> None:
            insert("later")(connection)
            go_on.wait()

        writing = self.database.write(slowly)
        self.assertEqual(await self.database.read(words), ["committed"])
        go_on.set()
        await writing
        await self.assertFailure(self.database.read(insert("x")), DatabaseError)

    async def test_readers_read_at_the_same_time(self) -> None:
        meeting = threading.Barrier(2, timeout=20)
        await gatherResults([self.database.read(lambda _: meeting.wait()) for _ in range(2)])

    async def test_what_was_asked_for_before_close_is_done_and_nothing_after(self) -> None:
        writing = [self.database.write(insert(str(number))) for number in range(20)]
        closing = self.database.close()
        await self.assertFailure(self.database.write(insert("late")), DatabaseClosed)
        await self.assertFailure(self.database.read(words), DatabaseClosed)
        await gatherResults([*writing, closing])
        await self.database.close()
        self.assertEqual(len(await self.open().read(words)), 20)

    async def test_readers_end_whichever_of_them_hears_of_it_first(self) -> None:
        """Seen: one that heard of the end before it had been told whom to tell kept close() waiting for ever."""
        alive: list[bool] = []

        def look(thread: Any, ended: Any = module._Thread.ended) -> Deferred[None]:
            # One that has heard of the end is gone a moment later.
            thread._thread.join(0.05)
            alive.append(thread._thread.is_alive())
            done: Deferred[None] = ended(thread)
            return done

        self.patch(module._Thread, "ended", look)
        for _ in range(5):
            meeting = threading.Barrier(2, timeout=20)
            await gatherResults([self.database.read(lambda _, all_here=meeting: all_here.wait()) for _ in range(2)])
            await self.database.close()
            self.database = self.open()
        self.assertEqual(alive, [True] * 15)

    def test_a_cancelled_call_is_ignored(self) -> Deferred[Any]:
        cancelled = self.database.write(insert("cancelled"))
        cancelled.addErrback(lambda _: None)
        cancelled.cancel()
        return self.database.write(insert("next"))

    def test_a_second_owner_is_refused(self) -> None:
        error = self.assertRaises(DatabaseInUse, Database, self.path, SCHEMA)
        self.assertEqual(str(error), f"{self.path} is in use by process {os.getpid()}")
        program = f"from twisted_smtpd.runtime.database import *; Database({self.path!r}, '')"
        other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        self.assertIn("DatabaseInUse", other.stderr)

    async def test_another_process_may_read_and_write(self) -> None:
        other = connect(self.path)
        self.addCleanup(other.close)
        other.execute("INSERT INTO words VALUES ('other')")
        await self.database.write(insert("own"))
        self.assertEqual(words(other), await self.database.read(words))

    async def test_another_process_that_writes_for_long_fails_all_with_one_line(self) -> None:
        await self.database.write(lambda connection: connection.execute("PRAGMA busy_timeout=1").fetchall())
        other = connect(self.path)
        self.addCleanup(other.close)
        other.execute("BEGIN IMMEDIATE")
        error: DatabaseError = await self.assertFailure(self.database.write(insert("x")), DatabaseError)
        self.assertEqual(str(error), f"{self.path} can't be used: database is locked")
        other.execute("ROLLBACK")
        self.assertEqual(await self.database.write(insert("x")), 1)

    def test_only_the_owner_of_the_file_may_read_it(self) -> None:
        for end in ("", "-wal", ".lock"):
            self.assertEqual(stat.S_IMODE(os.stat(self.path + end).st_mode), 0o600, end)

    def test_asyncio(self) -> None:
        async def use() -> list[str]:
            await self.database.write(insert("loop")).asFuture(asyncio.get_running_loop())
            found: list[str] = await self.database.read(words).asFuture(asyncio.get_running_loop())
            return found

        found: list[Any] = []
        thread = threading.Thread(target=lambda: found.append(asyncio.run(use())))
        thread.start()
        thread.join(30)
        self.assertEqual(found, [["loop"]])


class FileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = self.mktemp()

    def test_no_database(self) -> None:
        Path(self.path).write_bytes(b"no database" * 1000)
        error = self.assertRaises(DatabaseDamaged, Database, self.path, SCHEMA)
        self.assertEqual(str(error), f"{self.path} is damaged or no SQLite database: file is not a database")
        self.assertEqual(Path(self.path).read_bytes(), b"no database" * 1000)

    def test_a_schema_that_is_wrong(self) -> None:
        self.assertRaises(sqlite3.OperationalError, Database, self.path, "CREATE NONSENSE")

    def test_no_folder(self) -> None:
        self.assertRaises(FileNotFoundError, Database, os.path.join(self.path, "x"), SCHEMA)
        self.assertRaises(DatabaseError, connect, os.path.join(self.path, "x"))

    def test_options(self) -> None:
        self.assertRaises(ValueError, Database, self.path, SCHEMA, synchronous="OFF")


class DamageTests(TestCase):
    async def test_a_damaged_page_fails_what_needs_it_and_nothing_else(self) -> None:
        path = self.mktemp()
        database = Database(path, SCHEMA)
        await database.write(insert("kept"))
        await database.write(lambda connection: connection.execute("INSERT INTO bodies VALUES (zeroblob(99999))"))
        pages = await database.read(
            lambda connection: dict(connection.execute("SELECT name, rootpage FROM sqlite_master").fetchall())
        )
        await database.close()
        with open(path, "r+b") as file:
            file.seek((pages["bodies"] - 1) * 4096)
            file.write(b"\xff" * 4096)
        database = Database(path, SCHEMA)
        self.addCleanup(database.close)
        reading = database.read(lambda connection: connection.execute("SELECT * FROM bodies").fetchall())
        error: DatabaseDamaged = await self.assertFailure(reading, DatabaseDamaged)
        self.assertTrue(str(error).startswith(f"{path} is damaged"), error)
        self.assertEqual(await database.read(words), ["kept"])
        await database.write(insert("new"))
