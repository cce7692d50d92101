"""Writes lines without ever waiting: a log without a reader must not stop the server."""

from __future__ import annotations

import errno
import os
import select
import stat
import sys
import time
from collections import deque

try:
    import fcntl
except ImportError:  # no such locks on this system, and no workers either
    fcntl = None  # type: ignore[assignment]

__all__ = ["KEPT", "LineWriter"]

#: Octets that are kept for a reader who does not read.
KEPT = 2**20
# POSIX: so much can be written to a pipe that is ready, without waiting.
AT_ONCE = select.PIPE_BUF if hasattr(select, "PIPE_BUF") else 512
# Seconds after which what could not be written is tried again, and those that the end of the program waits for it.
AGAIN = 0.1
LAST = 1.0
PAUSE = 0.005


class LineWriter:
    """Writes to a descriptor.

    What a slow reader leaves is kept up to :data:`KEPT` octets.  Beyond, lines are thrown away, and a line tells how
    many.

    :param descriptor: an open file, pipe, socket or terminal.
    :param encoding: of its text; what it can't express is escaped.
    :param path: the file's name, if it has one: it is opened again when it has been moved away (``logrotate``).
    :param lock: a descriptor of a file that all processes have which write to the same pipe, socket or terminal: so a
        line that is too long to be written at once is not mixed with theirs.
    :ivar lost: lines that were thrown away since the last one that was written.
    """

    def __init__(
        self, descriptor: int, encoding: str = "utf-8", path: str | None = None, lock: int | None = None
    ) -> None:
        self._descriptor = descriptor
        self._encoding = encoding
        self._path = path
        self._lock = lock
        self._holds_lock = False
        self._looked = 0.0
        self._kept: deque[bytes] = deque()
        self._size = 0
        self._again = False
        self.lost = 0
        self._note_kind()

    def _note_kind(self) -> None:
        status = os.fstat(self._descriptor)
        # A file is always ready.
        self._is_file = stat.S_ISREG(status.st_mode)
        self._identity = (status.st_dev, status.st_ino)

    def write(self, line: str) -> None:
        """Write a line, now or when the reader has read; or throw it away.

        :param line: without its end.
        """
        data = f"{line}\n".encode(self._encoding, "backslashreplace")
        if self._size + len(data) > KEPT:
            self.flush()
        if self._size + len(data) > KEPT:
            self.lost += 1
            return
        if self.lost:
            lost, self.lost = self.lost, 0
            self._keep(f"{lost:,} lines of the log were lost here: its reader was too slow\n".encode())
        self._keep(data)
        self.flush()
        if self._kept:
            self._try_again_later()

    def _keep(self, data: bytes) -> None:
        self._kept.append(data)
        self._size += len(data)

    def flush(self, wait: float = 0.0) -> None:
        """Write what is kept, as far as the reader takes it.

        :param wait: seconds to wait for the reader.
        """
        self._look_after_file()
        kept = self._kept
        while kept:
            data = kept[0]
            if not self._is_file and not (self._ready(wait) and self._take_lock(len(data))):
                return
            try:
                written = os.write(self._descriptor, data if self._is_file else data[:AT_ONCE])
            except OSError as error:
                if error.errno in (errno.EAGAIN, errno.EINTR):
                    return
                # There is no reader any more, or no space: nothing of this can be told anywhere.
                kept.clear()
                self._size = 0
                self._leave_lock()
                return
            self._size -= written
            if written < len(data):
                kept[0] = data[written:]
            else:
                kept.popleft()
                self._leave_lock()

    def _take_lock(self, size: int) -> bool:
        """Whether no other process is in the middle of a line.

        Lines that are written at once share the lock: the system keeps them apart.
        """
        if self._lock is None or self._holds_lock:
            return True
        try:
            fcntl.lockf(self._lock, (fcntl.LOCK_SH if size <= AT_ONCE else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError:
            return False
        self._holds_lock = True
        return True

    def _leave_lock(self) -> None:
        if self._lock is not None and self._holds_lock:
            fcntl.lockf(self._lock, fcntl.LOCK_UN)
            self._holds_lock = False

    def _ready(self, wait: float) -> bool:
        try:
            poll = select.poll()
        except AttributeError:  # no such call on this system
            return bool(select.select([], [self._descriptor], [], wait)[1])
        poll.register(self._descriptor, select.POLLOUT)
        # A reader that has gone counts as ready: writing then fails.
        return bool(poll.poll(wait * 1000))

    def _try_again_later(self) -> None:
        if not self._again and "twisted.internet.reactor" in sys.modules:
            from twisted.internet import reactor

            self._again = True
            reactor.callLater(AGAIN, self._try_again)

    def _try_again(self) -> None:
        self._again = False
        self.flush()
        if self._kept:
            self._try_again_later()

    def _look_after_file(self) -> None:
        """Open the file again if its name is another file's now, or no file's.  It is looked at once a second."""
        if self._path is None or time.monotonic() - self._looked < 1.0:
            return
        self._looked = time.monotonic()
        try:
            status = os.stat(self._path)
            if (status.st_dev, status.st_ino) == self._identity:
                return
        except OSError:
            pass
        try:
            descriptor = open_log(self._path)
        except OSError:
            return
        os.close(self._descriptor)
        self._descriptor = descriptor
        self._note_kind()

    def close(self) -> None:
        """Give the reader a second for what is kept; for the end of the program."""
        until = time.monotonic() + LAST
        self.flush()
        while self._kept and time.monotonic() < until:
            # Not only the reader, but also another process's line may be waited for.
            time.sleep(PAUSE)
            self.flush(until - time.monotonic())


def open_log(path: str) -> int:
    """Open a file to append to; only its owner and its group may read a new one.

    :raises OSError: if that is not possible.
    """
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o640)
