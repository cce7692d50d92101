"""A message's content as a stream, for ``handle_DATA_STREAM``."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from enum import Enum

from twisted.internet.defer import Deferred

__all__ = ["ContentStream", "StreamEnd", "StreamInterrupted"]

# What a hook may lag behind the client: beyond, the client has to wait.
HIGH_WATER = 2**18
# The same in pieces: a client that sends two octets at a time must not make the server hold an object for each.
MAX_PIECES = 1024


class StreamEnd(Enum):
    """Why a stream has ended."""

    #: The hook has the whole message, or will have it: nothing more is to come.
    WHOLE = "the message is whole"
    #: It breaks a limit, or has bare newlines where they are refused; ``stream.error`` has the reply.
    REFUSED = "the message is refused"
    #: The client has given it up with RSET or EHLO, between two chunks.
    ABANDONED = "the client gave up its message"
    #: The connection was lost or closed, by the client or by the server.
    LOST = "the connection ended before the message did"
    #: The hook has not read for ``hook_timeout`` seconds.
    OVERDUE = "the hook took too long"


class StreamInterrupted(ConnectionError):
    """The client went away before the end of its message, or the server gave up on the hook.

    :param end: which of these it was.
    :ivar end: the same.
    """

    def __init__(self, end: StreamEnd = StreamEnd.LOST) -> None:
        super().__init__(end.value)
        self.end = end


class ContentStream(AsyncIterator[bytes]):
    """The content of one message, in chunks of any size, as they come: ``async for chunk in stream``.

    The lines end with CRLF, and what made the dots transparent is removed.  The iteration ends normally only at the
    end of a message that is whole and within the limits; otherwise it raises :exc:`StreamInterrupted` or
    :exc:`twisted_smtpd.SMTPReplyError`, and what was read so far has to be thrown away.

    :param drained: called when the hook has caught up.
    :param cancel: called when the hook is to end and can't be told.
    :param declared_size: octets that the client has announced (RFC 1870), or ``None``.
    :ivar declared_size: the same.  It is the client's word: a hook that counts on it has to check it.
    :ivar size: octets that the hook has read so far.
    :ivar full: whether the client has to wait for the hook.
    :ivar error: why the message is not whole, or ``None``.
    :ivar end: why nothing more comes; ``None`` while more may come.  A hook that is cancelled can look here.
    """

    def __init__(
        self, drained: Callable[[], None], cancel: Callable[[], None], declared_size: int | None = None
    ) -> None:
        self.declared_size = declared_size
        self.size = 0
        self._drained = drained
        self._cancel = cancel
        self._chunks: deque[bytes] = deque()
        self._backlog = 0
        self._ended = False
        self._told = False
        self._waiter: Deferred[None] | None = None
        self.full = False
        self.error: Exception | None = None
        self.end: StreamEnd | None = None

    def __aiter__(self) -> ContentStream:
        return self

    async def __anext__(self) -> bytes:
        while not self._chunks:
            if self.error is not None:
                self._told = True
                raise self.error
            if self._ended:
                raise StopAsyncIteration
            if self._waiter is not None and not self._waiter.called:
                raise RuntimeError("the stream is already being read")
            self._waiter = Deferred()
            await self._waiter
        chunk = self._chunks.popleft()
        self._backlog -= len(chunk)
        self.size += len(chunk)
        if self.full and not self._backlog:
            self._free()
        return chunk

    def put(self, chunk: bytes) -> None:
        """Some content has come."""
        if chunk and not self._ended:
            self._chunks.append(chunk)
            self._backlog += len(chunk)
            self.full = self._backlog > HIGH_WATER or len(self._chunks) > MAX_PIECES
            self._wake()

    def finish(self) -> None:
        """The message is whole."""
        if not self._ended:
            self.end = StreamEnd.WHOLE
        self._ended = True
        self._wake()

    def fail(self, error: Exception) -> None:
        """The message will not be whole: what the hook has not read yet, it need not."""
        if not self._ended:
            self.error = error
            self.end = error.end if isinstance(error, StreamInterrupted) else StreamEnd.REFUSED
            self.close()
            self._told = self._wake()

    def give_up(self, error: Exception) -> None:
        """End the hook: tell it if it reads, cancel it if it is at something else.

        One that has been told is left to clean up.
        """
        self.fail(error)
        if not self._told:
            self._cancel()

    def close(self) -> None:
        """The hook is done, whatever is left."""
        self._ended = True
        self._chunks.clear()
        self._backlog = 0
        if self.full:
            self._free()

    def _free(self) -> None:
        self.full = False
        self._drained()

    def _wake(self) -> bool:
        """Have a hook that waits look again; returns whether there was one."""
        waiter, self._waiter = self._waiter, None
        if waiter is None or waiter.called:
            return False
        waiter.callback(None)
        return True
