"""A message's content as a stream, for ``handle_DATA_STREAM``."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable

from twisted.internet.defer import Deferred

__all__ = ["ContentStream", "StreamInterrupted"]

# What a hook may lag behind the client: beyond, the client has to wait.
HIGH_WATER = 2**18


class StreamInterrupted(ConnectionError):
    """The client went away before the end of its message, or the server gave up on the hook."""


class ContentStream(AsyncIterator[bytes]):
    """The content of one message, in chunks of any size, as they come: ``async for chunk in stream``.

    The lines end with CRLF, and what made the dots transparent is removed.  The iteration ends normally only at the
    end of a message that is whole and within the limits; otherwise it raises :exc:`StreamInterrupted` or
    :exc:`twisted_smtpd.SMTPReplyError`, and what was read so far has to be thrown away.

    :param drained: called when the hook has caught up.
    :param cancel: called when the hook is to end.
    """

    def __init__(self, drained: Callable[[], None], cancel: Callable[[], None]) -> None:
        self._drained = drained
        self._cancel = cancel
        self._chunks: deque[bytes] = deque()
        self._backlog = 0
        self._ended = False
        self._error: Exception | None = None
        self._waiter: Deferred[None] | None = None
        self.full = False

    def __aiter__(self) -> ContentStream:
        return self

    async def __anext__(self) -> bytes:
        while not self._chunks:
            if self._error is not None:
                raise self._error
            if self._ended:
                raise StopAsyncIteration
            self._waiter = Deferred()
            await self._waiter
        chunk = self._chunks.popleft()
        self._backlog -= len(chunk)
        if self.full and not self._backlog:
            self.full = False
            self._drained()
        return chunk

    def put(self, chunk: bytes) -> None:
        """Some content has come."""
        if chunk and not self._ended and self._error is None:
            self._chunks.append(chunk)
            self._backlog += len(chunk)
            self.full = self._backlog > HIGH_WATER
            self._wake()

    def finish(self) -> None:
        """The message is whole."""
        self._ended = True
        self._wake()

    def fail(self, error: Exception) -> None:
        """The message will not be whole: what the hook has not read yet, it need not."""
        self._error = error
        self.close()
        self._wake()

    def close(self) -> None:
        """The hook is done, whatever is left."""
        self._ended = True
        self._chunks.clear()
        self._backlog = 0
        self.full = False

    def give_up(self) -> None:
        """The hook takes too long: end it."""
        self.fail(StreamInterrupted("the hook took too long"))
        self._cancel()

    def _wake(self) -> None:
        if self._waiter is not None:
            waiter, self._waiter = self._waiter, None
            if not waiter.called:
                waiter.callback(None)
