"""An SQLite database for a server: its owner writes in one thread, and many writers share one commit."""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
from asyncio import AbstractEventLoop
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, Literal, TypeVar

from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.python.failure import Failure

from twisted_smtpd.runtime.reactors import global_reactor, loop_of, running_loop

try:
    import fcntl
except ImportError:  # no such locks on this system
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "Database",
    "DatabaseClosed",
    "DatabaseDamaged",
    "DatabaseError",
    "DatabaseInUse",
    "clear_error",
    "connect",
    "sync_folder",
]

T = TypeVar("T")
Function = Callable[[sqlite3.Connection], T]
Work = Callable[[sqlite3.Connection, "list[_Job]"], None]

#: Calls of :meth:`Database.write` that share one commit at most.
GROUP = 256
#: Milliseconds that a writer waits for another process that writes.
BUSY_TIMEOUT = 5000
# Octets of the write-ahead log that are kept after a checkpoint.
_LOG_KEPT = 16 * 2**20
_DAMAGED = ("malformed", "not a database", "unsupported file format")


class DatabaseError(Exception):
    """A database can't be used; the text is one line for a person, with the file's name."""


class DatabaseInUse(DatabaseError):
    """Another process, or another object of this one, owns the database."""


class DatabaseDamaged(DatabaseError):
    """The file is no database, or a damaged one."""


class DatabaseClosed(DatabaseError):
    """The database has been closed."""


def clear_error(error: BaseException, path: str) -> BaseException:
    """What an error of SQLite says about the machine or the file, as an error that a person can act on.

    :param error: the error; others than those of SQLite stay what they are.
    :param path: of the database.
    :returns: :exc:`OSError` with ``ENOSPC`` for a full disk, :exc:`DatabaseDamaged`, :exc:`DatabaseError`; or the error
        itself, if it is about the statement.
    """
    if not isinstance(error, sqlite3.DatabaseError):
        return error
    text = str(error)
    if "disk is full" in text:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
    if any(words in text for words in _DAMAGED):
        return DatabaseDamaged(f"{path} is damaged or no SQLite database: {text}")
    if isinstance(error, sqlite3.OperationalError) and any(
        words in text for words in ("readonly", "unable to open", "disk I/O", "locked")
    ):
        return DatabaseError(f"{path} can't be used: {text}")
    return error


def connect(path: str, synchronous: str = "FULL", *, any_thread: bool = False) -> sqlite3.Connection:
    """Open a database that is there, in WAL mode and without Python's own transactions.

    :param path: of the file.
    :param synchronous: see :class:`Database`.
    :param any_thread: whether another thread than this one uses the connection.
    :raises DatabaseError: if it can't be opened.
    """
    try:
        connection = sqlite3.connect(
            f"file:{_quoted(path)}?mode=rw",
            uri=True,
            timeout=BUSY_TIMEOUT / 1000,
            isolation_level=None,
            check_same_thread=not any_thread,
        )
    except sqlite3.Error as error:
        raise clear_error(error, path) from None
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={synchronous}")
        connection.execute(f"PRAGMA journal_size_limit={_LOG_KEPT}")
        connection.execute("PRAGMA foreign_keys=ON")
    except sqlite3.Error as error:
        connection.close()
        raise clear_error(error, path) from None
    return connection


def _quoted(path: str) -> str:
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")


class _OwnerLock:
    """Says that a file has an owner; the system releases it when the process ends, however it ends.

    :param path: of a file beside the database.
    :raises DatabaseInUse: if there is another owner.
    """

    def __init__(self, path: str, database: str) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
        if fcntl is None:
            return
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            owner = os.read(self._descriptor, 20).decode("ascii", "replace").strip()
            os.close(self._descriptor)
            by = f"process {owner}" if owner.isdigit() else "another process"
            raise DatabaseInUse(f"{database} is in use by {by}") from None
        os.ftruncate(self._descriptor, 0)
        os.write(self._descriptor, f"{os.getpid()}\n".encode())

    def release(self) -> None:
        os.close(self._descriptor)


class _Job:
    """A call of :meth:`Database.write` or :meth:`Database.read`.

    :ivar home: the loop or the reactor in whose thread the result is wanted.
    :ivar outcome: the result, or a ``Failure``.
    """

    __slots__ = ("done", "function", "home", "outcome")

    def __init__(self, function: Function[Any]) -> None:
        self.function = function
        self.done: Deferred[Any] = Deferred(lambda _: None)
        loop = running_loop()
        reactor = global_reactor()
        self.home: Any = reactor if loop is None or loop_of(reactor) is loop else loop
        self.outcome: Any = None

    def fire(self) -> None:
        if not self.done.called:
            self.done.callback(self.outcome)


def _fire(jobs: list[_Job]) -> None:
    for job in jobs:
        job.fire()


def _answer(jobs: list[_Job]) -> None:
    """Fire the Deferreds, each in the thread in which it was made."""
    homes: dict[int, list[_Job]] = {}
    for job in jobs:
        homes.setdefault(id(job.home), []).append(job)
    for group in homes.values():
        home = group[0].home
        call = home.call_soon_threadsafe if isinstance(home, AbstractEventLoop) else home.callFromThread
        # A loop that has been closed waits for nothing.
        with suppress(RuntimeError):
            call(_fire, group)


class Database:
    """An SQLite database in WAL mode, with one owner.

    Functions that are given to :meth:`write` run in one thread, in order.  Those that wait at the same time share one
    commit, and so one ``fsync``; each has a savepoint, so that one that fails does not undo the others.  Functions that
    are given to :meth:`read` run in threads of their own, on a snapshot: they wait for no writer.

    Other processes may open the same file with :func:`connect`, to read and for short writes.

    :param path: of the file; it is created with mode 0600, in a folder that exists.  Beside it are ``path-wal`` and
        ``path-shm``, which belong to SQLite, and ``path.lock``, which has the number of the owner's process.
    :param schema: statements that make the tables, each ``IF NOT EXISTS``; they run in one transaction.
    :param synchronous: ``"FULL"``: what has been committed survives a crash of the machine; ``"NORMAL"``: it survives a
        crash of this process, and after a crash of the machine the last commits may be missing.
    :param readers: threads for :meth:`read` at most; they are started when they are needed.
    :param before_commit: called in the writer's thread before each commit, to synchronise what a row refers to; an
        :exc:`OSError` fails all that share the commit.
    :raises DatabaseInUse: if another process owns it.
    :raises DatabaseError: if it can't be opened: it is damaged, or a permission is missing.
    :raises OSError: if the disk is full, or the file can't be created.
    """

    def __init__(
        self,
        path: str,
        schema: str,
        *,
        synchronous: Literal["FULL", "NORMAL"] = "FULL",
        readers: int = 2,
        before_commit: Callable[[], None] | None = None,
    ) -> None:
        if synchronous not in ("FULL", "NORMAL"):
            raise ValueError(f'synchronous is "FULL" or "NORMAL", not {synchronous!r}')
        self.path = path
        self._synchronous, self._before_commit = synchronous, before_commit
        self._lock = _OwnerLock(f"{path}.lock", path)
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600))
            connection = self._open(schema)
        except BaseException:
            self._lock.release()
            raise
        self._closed = False
        self._writer = _Thread(f"{path}: writer", self._write_all, connection, GROUP)
        self._readers = _Pool(readers, path, self._read_all)

    def __repr__(self) -> str:
        return f"<Database {self.path}>"

    def _open(self, schema: str) -> sqlite3.Connection:
        connection = connect(self.path, self._synchronous, any_thread=True)
        try:
            # executescript() would end a transaction that has begun before it.
            connection.executescript(f"BEGIN IMMEDIATE;\n{schema};\nCOMMIT;")
            sync_folder(os.path.dirname(self.path) or ".")
        except sqlite3.Error as error:
            connection.close()
            raise clear_error(error, self.path) from None
        except BaseException:
            connection.close()
            raise
        return connection

    def write(self, function: Function[T]) -> Deferred[T]:
        """Change something.

        :param function: called in the writer's thread with the connection, inside a transaction that it must not end.
            It may be called a second time, if a commit that it shared has failed.
        :returns: fires with what it returned, when that is committed, in the thread that called this; it fails with
            what the function raised, with :exc:`OSError` (``ENOSPC``) if the disk is full, with :exc:`DatabaseError`.
        """
        return self._give(self._writer, function)

    def read(self, function: Function[T]) -> Deferred[T]:
        """Look something up.

        :param function: called in a reader's thread, with a connection that can't write; what it returns must not need
            the connection any more.  It should not take long: while it reads, the write-ahead log grows.
        :returns: as with :meth:`write`.
        """
        return self._give(self._readers, function)

    def _give(self, where: _Thread | _Pool, function: Function[T]) -> Deferred[T]:
        job = _Job(function)
        if self._closed:
            job.done.errback(DatabaseClosed(f"{self.path} has been closed"))
        else:
            where.put(job)
        return job.done

    def close(self) -> Deferred[None]:
        """Carry out what has been asked for, end the threads, and give up the file.

        :returns: fires when that is done; a second call does nothing.
        """
        if self._closed:
            return succeed(None)
        self._closed = True
        return gatherResults(self._readers.end()).addCallback(self._end_writer).addCallback(self._release)

    def _end_writer(self, _: object) -> Deferred[None]:
        # The last to go: SQLite takes its log over into the file when the last connection that may write is closed.
        ended = self._writer.ended()
        self._writer.put(None)
        return ended

    def _release(self, _: object) -> None:
        self._lock.release()

    # -- in the threads ------------------------------------------------------------------------------------------------

    def _write_all(self, connection: sqlite3.Connection, jobs: list[_Job]) -> None:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            for job in jobs:
                job.outcome = self._failure(error)
            return
        try:
            self._write_group(connection, jobs)
        except Exception as error:
            _roll_back(connection)
            if len(jobs) == 1:
                jobs[0].outcome = self._failure(error)
                return
            # Each on its own: so that only those fail that have a reason to.
            for job in jobs:
                self._write_all(connection, [job])

    def _write_group(self, connection: sqlite3.Connection, jobs: list[_Job]) -> None:
        for job in jobs:
            connection.execute("SAVEPOINT one")
            try:
                job.outcome = job.function(connection)
            except Exception as error:
                if not connection.in_transaction:
                    # SQLite has rolled back all of it, as it does when the disk is full.
                    raise
                connection.execute("ROLLBACK TO one")
                job.outcome = self._failure(error)
            connection.execute("RELEASE one")
        if self._before_commit is not None:
            self._before_commit()
        connection.execute("COMMIT")

    def _read_all(self, connection: sqlite3.Connection, jobs: list[_Job]) -> None:
        for job in jobs:
            try:
                connection.execute("BEGIN")
                job.outcome = job.function(connection)
                connection.execute("COMMIT")
            except Exception as error:
                _roll_back(connection)
                job.outcome = self._failure(error)

    def _failure(self, error: Exception) -> Failure:
        return Failure(clear_error(error, self.path))


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")


def sync_folder(path: str) -> None:
    """Synchronise the names of the files in a folder, where the system can.

    :raises OSError: if that fails.
    """
    if os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class _Thread:
    """A thread with a connection.

    :param name: of the thread.
    :param work: carries out some jobs, and sets their outcomes.
    :param connection: a connection, or what opens one in the thread.
    :param group: how many jobs it takes at once.
    :param jobs: where the jobs are, if several threads share them.
    """

    def __init__(
        self,
        name: str,
        work: Work,
        connection: sqlite3.Connection | Callable[[], sqlite3.Connection],
        group: int = 1,
        jobs: SimpleQueue[_Job | None] | None = None,
    ) -> None:
        self._work, self._connection, self._group = work, connection, group
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue() if jobs is None else jobs
        self._end: _Job | None = None
        # What has been promised is on the disk already: the end of the program waits for nothing.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, job: _Job | None) -> None:
        self._jobs.put(job)

    def ended(self) -> Deferred[None]:
        """Fires when the thread has ended, as it does when it finds a ``None`` among the jobs."""
        self._end = _Job(lambda _: None)
        return self._end.done

    def _run(self) -> None:
        while jobs := self._next():
            try:
                if not isinstance(self._connection, sqlite3.Connection):
                    self._connection = self._connection()
                self._work(self._connection, jobs)
            except BaseException as error:
                for job in jobs:
                    job.outcome = Failure(error)
            _answer(jobs)
            # Not kept until the next ones come: they may hold messages.
            del jobs
        if isinstance(self._connection, sqlite3.Connection):
            with suppress(sqlite3.Error):
                self._connection.close()
        if self._end is not None:
            _answer([self._end])

    def _next(self) -> list[_Job]:
        """The next jobs; none at the end."""
        first = self._jobs.get()
        if first is None:
            return []
        jobs = [first]
        while len(jobs) < self._group:
            try:
                job = self._jobs.get_nowait()
            except Empty:
                break
            if job is None:
                self._jobs.put(None)
                break
            jobs.append(job)
        return jobs


class _Pool:
    """Threads that read, started when all others are busy."""

    def __init__(self, size: int, path: str, work: Work) -> None:
        self._size, self._path, self._work = size, path, work
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._threads: list[_Thread] = []

    def put(self, job: _Job) -> None:
        self._jobs.put(job)
        if len(self._threads) < self._size and (not self._threads or not self._jobs.empty()):
            name = f"{self._path}: reader {len(self._threads) + 1}"
            self._threads.append(_Thread(name, self._work, self._open, jobs=self._jobs))

    def _open(self) -> sqlite3.Connection:
        connection = connect(self._path)
        connection.execute("PRAGMA query_only=ON")
        return connection

    def end(self) -> list[Deferred[None]]:
        # All first: any of them may take the first None.
        ends = [thread.ended() for thread in self._threads]
        for _ in ends:
            self._jobs.put(None)
        return ends
